"""The reference of training_vs_pytorch.py: PyTorch and transformers, one segment a go.

The loop is the one of transformers' text-classification examples, in float32, with
attention as transformers chooses it (sdpa). Imports no tfopt: it runs in a Python of
its own.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import protocol
import torch
import transformers


def main() -> None:
    """Trains, a segment of steps for each request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir", help="a Hugging Face directory")
    parser.add_argument("batches", help="an .npz with input_ids_0, label_0, ...")
    parser.add_argument("settings", help="tfopt's training settings as JSON")
    parser.add_argument("num_threads", type=int)
    parser.add_argument("--fused", action="store_true", help="AdamW in one kernel")
    arguments = parser.parse_args()
    channel = protocol.Channel()
    torch.set_num_threads(arguments.num_threads)
    settings = json.loads(arguments.settings)
    torch.manual_seed(settings["seed"])

    with np.load(arguments.batches) as arrays:
        batches = [
            {("labels" if name == "label" else name):
             torch.from_numpy(arrays[f"{name}_{i}"].astype(np.int64))
             for name in ("input_ids", "attention_mask", "token_type_ids", "label")}
            for i in range(int(arrays["count"]))]
    model = transformers.BertForSequenceClassification.from_pretrained(
        arguments.model_dir)
    step = Step(model, settings, len(batches) * settings["epochs"], arguments.fused)
    model.eval()
    with torch.no_grad():
        logits = model(**batches[0]).logits
    model.train()
    channel.say(ready=True, logits=logits.tolist(),
                attention=model.config._attn_implementation,
                versions={"torch": torch.__version__,
                          "transformers": transformers.__version__})
    done, losses = 0, []
    for request in channel.requests():
        seconds = []
        last = time.perf_counter()
        for _ in range(request["steps"]):
            losses.append(step(batches[done % len(batches)]))
            done += 1
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
        # The mean over the last whole pass, as Keras reports it.
        end = done // len(batches) * len(batches)
        channel.say(seconds=seconds, epoch_loss=float(np.mean(
            losses[end - len(batches):end])) if end else None)


class Step:
    """One training step: forward, backward, clip, AdamW, schedule.

    Args:
        model: trained in place.
        settings: the fields of `tfopt.train.Settings`.
        total: steps of the whole run, for the schedule.
        fused: whether AdamW is PyTorch's fused kernel, or as it is by default.
    """

    def __init__(self, model, settings, total: int, fused: bool):
        self._model = model
        self._clip_norm = settings["clip_norm"]
        decays, others = [], []
        for name, weight in model.named_parameters():
            kept = name.endswith("bias") or "LayerNorm" in name
            (others if kept else decays).append(weight)
        self._optimizer = torch.optim.AdamW(
            [{"params": decays, "weight_decay": settings["weight_decay"]},
             {"params": others, "weight_decay": 0.0}],
            lr=settings["learning_rate"], **({"fused": True} if fused else {}))
        self._schedule = transformers.get_linear_schedule_with_warmup(
            self._optimizer, int(settings["warmup"] * total), total)

    def __call__(self, batch) -> float:
        """Takes a step; returns the loss."""
        loss = self._model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        return loss.item()


if __name__ == "__main__":
    main()
