"""Models that come and go while requests run: nothing is lost, or half taken."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import time
import weakref

import pytest
from serving import serving, until

from tfopt.serve import scheduler
from tfopt.serve.repository import Repository
from tfopt.serve.watch import Watch

LOAD, UNLOAD = ("/v2/repository/models/{}/" + word for word in ("load", "unload"))


def index(client, **asked):
    found = client.post("/v2/repository/index", json=asked).json()
    return {state["name"]: (state["state"], state.get("version"), state["reason"])
            for state in found}


def texts(client, model, *texts, **fields):
    return client.post("/predict", json={"texts": list(texts), "model": model,
                                         **fields})


def rewrite(place, **fields):
    """Writes a bundle's file anew, with other fields."""
    file = place / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_models_of_a_folder_are_loaded_and_unloaded(folder, tiny_ladder):
    with serving(folder) as client:
        assert index(client) == {"one": ("READY", "1", ""), "tiny": ("READY", "1", "")}
        assert client.post(UNLOAD.format("one")).json() == {"name": "one"}
        assert index(client)["one"] == ("UNAVAILABLE", None, "unloaded")
        assert [*index(client, ready=True)] == ["tiny"]
        assert client.get("/v2/models/one/ready").status_code == 404
        assert texts(client, "one", "a").status_code == 404
        assert client.post(UNLOAD.format("one")).status_code == 404
        assert client.post(LOAD.format("one")).json() == {"name": "one", "version": "2"}
        assert texts(client, "one", "a").status_code == 200
        shutil.copytree(tiny_ladder / "whole", folder / "two")
        assert index(client)["two"] == ("UNAVAILABLE", None, "")
        assert client.post(LOAD.format("two")).status_code == 200
        assert texts(client, "two", "a").json()["answers"][0]["variant"] == "two"
        assert texts(client, None, "a").status_code == 400  # there are three
        assert client.post(UNLOAD.format("tiny")).status_code == 200
        for name in ("one", "two"):
            client.post(UNLOAD.format(name))
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/v2/health/live").status_code == 200


def test_a_new_version_answers_and_the_old_one_is_freed(folder):
    with serving(folder) as client:
        before = texts(client, "one", "a film").json()["answers"][0]["label"]
        old = weakref.ref(client.service.repository.get("one"))
        rewrite(folder / "one", task={"task": "classification",
                                      "labels": ["x", "y", "z"]})
        assert texts(client, "one", "a film").json()["answers"][0]["label"] == before
        assert client.post(LOAD.format("one")).json()["version"] == "2"
        after = texts(client, "one", "a film").json()["answers"][0]["label"]
        assert after == "xyz"[["bad", "fine", "good"].index(before)]
        client.service.metrics()  # the recorder holds what it has not counted yet
        gc.collect()
        until(lambda: old() is None)


def test_a_request_keeps_the_version_that_it_began_with(folder, monkeypatch):
    read, busy, go = scheduler._read, threading.Event(), threading.Event()

    def wait(*arguments):
        busy.set()
        assert go.wait(60)
        return read(*arguments)

    with serving(folder) as client:
        expected = texts(client, "one", "a film").json()["answers"]
        monkeypatch.setattr(scheduler, "_read", wait)
        found = []
        asking = threading.Thread(target=lambda: found.append(
            texts(client, "one", "a film")))
        asking.start()
        assert busy.wait(60)
        assert client.post(UNLOAD.format("one")).status_code == 200
        assert texts(client, "one", "a").status_code == 404
        go.set()
        asking.join(60)
        assert (found[0].status_code, found[0].json()["answers"]) == (200, expected)


def test_loading_while_clients_send_loses_and_changes_nothing(folder):
    answers, ended = [], threading.Event()
    with serving(folder) as client:
        expected = texts(client, "tiny", "a film", variant="whole").json()["answers"]

        def send():
            while not ended.is_set():
                answers.append(texts(client, "tiny", "a film", variant="whole"))

        clients = [threading.Thread(target=send) for _ in range(3)]
        for thread in clients:
            thread.start()
        for _ in range(5):
            assert client.post(LOAD.format("tiny")).status_code == 200
        ended.set()
        for thread in clients:
            thread.join(60)
    assert len(answers) > 5
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json()["answers"] == expected for answer in answers)


def half_written(place):
    whole = (place / "model.tflite").read_bytes()
    (place / "model.tflite").write_bytes(whole[:len(whole) // 2])


def without_its_tokenizer(place):
    (place / "tokenizer.json").unlink()


def of_another_task(place):
    rewrite(place, task={"task": "classification", "labels": ["x", "y"]})


def that_knows_no_word(place):
    rewrite(place, max_length=1)


def emptied(place):
    (place / "model.tflite").write_bytes(b"")  # which the one in service has mapped


@pytest.mark.parametrize("damage", [half_written, emptied, without_its_tokenizer,
                                    of_another_task, that_knows_no_word])
def test_a_bundle_that_is_not_whole_is_refused(folder, damage):
    with serving(folder) as client:
        expected = texts(client, "one", "a film").json()["answers"]
        damage(folder / "one")
        answer = client.post(LOAD.format("one"))
        assert answer.status_code == 400
        assert "Received: " in answer.json()["error"]
        assert index(client)["one"] == ("READY", "1", answer.json()["error"])
        assert texts(client, "one", "a film").json()["answers"] == expected


def test_rungs_of_two_tasks_are_no_ladder(folder):
    rewrite(folder / "tiny" / "half", task={"task": "classification",
                                            "labels": ["x", "y", "z"]})
    with serving(folder) as client:
        assert "of one task. Received: " in index(client)["tiny"][2]
        assert [*index(client, ready=True)] == ["one"]


@pytest.mark.parametrize("name", ["..", "%2e%2e", ".hidden", "", "%2Fetc", "one%2F..",
                                  "a%00b", "linked", "nothing", "file"])
def test_what_is_not_in_the_directory_is_not_loaded(folder, tiny_ladder, name):
    (folder / "linked").symlink_to(tiny_ladder / "whole")
    (folder / "file").write_text("")
    shutil.copytree(tiny_ladder / "whole", folder / ".hidden")
    with serving(folder) as client:
        answer = client.post(LOAD.format(name))
        assert answer.status_code in (400, 404)
        assert "Received: " in answer.json()["error"]
        assert [*index(client)] == ["one", "tiny"]


@pytest.mark.parametrize(("body", "received"), [
    (b"[]", "list"), (b"{", "line 1"), (b'{"name": 3}', "'name'"),
    (b'{"parameters": {"config": "x"}}', "parameters")])
def test_a_body_of_load_that_asks_for_more_is_refused(client, body, received):
    answer = client.post(LOAD.format("tiny"), content=body)
    assert answer.status_code == 400
    assert received in answer.json()["error"]


def test_clients_may_be_kept_from_loading(tiny_ladder):
    with serving(tiny_ladder, control=False) as client:
        for path in (LOAD, UNLOAD):
            answer = client.post(path.format("tiny"))
            assert answer.status_code == 403
            assert "(--control)" in answer.json()["error"]
        assert texts(client, "tiny", "a").status_code == 200


def test_a_directory_needs_a_bundle_that_opens(tmp_path, folder):
    for directory in (tmp_path / "nowhere", tmp_path / "models" / "one" / "vocab.txt"):
        with pytest.raises(ValueError, match="a folder of them. Received: "):
            Repository(directory, copies=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Received: .*empty without any$"):
        Repository(tmp_path / "empty", copies=1)
    shutil.rmtree(folder / "tiny")
    half_written(folder / "one")
    with pytest.raises(ValueError, match=r"Received: .*one/model\.tflite$"):
        Repository(folder, copies=1)


def test_a_single_model_may_be_given_a_name(folder, tiny_ladder):
    with serving(tiny_ladder, name="intents") as client:
        assert index(client) == {"intents": ("READY", "1", "")}
        assert client.post(LOAD.format("intents")).json()["version"] == "2"
        assert texts(client, "intents", "a").status_code == 200
    for directory, name in ((folder, "intents"), (tiny_ladder, "a/b"),
                            (tiny_ladder, "..")):
        with pytest.raises(ValueError, match=f"Received: {name} for {directory}"):
            Repository(directory, copies=1, name=name)


def test_one_broken_bundle_of_several_does_not_keep_the_others_out(folder):
    half_written(folder / "one")
    with serving(folder) as client:
        assert index(client)["tiny"] == ("READY", "1", "")
        assert "is damaged" in index(client)["one"][2]
        assert texts(client, None, "a").json()["model"] == "tiny"


def test_what_is_put_into_the_directory_is_loaded(folder, tiny_ladder):
    with serving(folder, watch_s=0.05) as client:
        shutil.copytree(tiny_ladder, folder / "new")
        until(lambda: index(client).get("new", " ")[0] == "READY")
        rewrite(folder / "one", source={"again": True})
        until(lambda: index(client)["one"][1] == "2")
        rewrite(folder / "tiny" / "half", source={"again": True})
        until(lambda: index(client)["tiny"][1] == "2")
        shutil.rmtree(folder / "new")
        time.sleep(0.2)
        assert texts(client, "new", "a").status_code == 200


def test_a_half_written_bundle_is_loaded_when_it_is_whole(folder):
    repository = Repository(folder, copies=1)
    watch = Watch(repository, 3600)
    whole = (folder / "one" / "model.tflite").read_bytes()
    half_written(folder / "one")
    watch.look()
    watch.look()
    assert repository.get("one").version == 1
    assert "is damaged" in repository.index()[0].reason
    (folder / "one" / "model.tflite").write_bytes(whole)
    watch.look()
    assert repository.get("one").version == 2
    watch.look()
    assert repository.get("one").version == 2
    watch.close()
