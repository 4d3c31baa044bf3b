"""The same bundle behind another server: `python other_servers.py NAME BUNDLE PORT`.

MLServer and KServe speak the protocol of `tfopt serve`, so that one client asks all. As
there, the model computes in threads, not in the event loop. Runs in an interpreter that
has the server, and what tfopt needs to answer:

    python -m venv mlserver && mlserver/bin/pip install mlserver==1.7.1 \
        -r requirements-serve.txt
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

MODEL = "demo"
_THREADS = 2


class Answers:
    """Texts to labels, by threads."""

    def __init__(self, place: str):
        from tfopt.serve import Bundle

        self._bundle = Bundle.open(place, num_threads=1, copies=_THREADS)
        self._bundle.warm()
        self._threads = ThreadPoolExecutor(_THREADS)

    async def labels(self, texts: list[str]) -> list[str]:
        """The label of each text."""
        answers = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._bundle.predict, texts)
        return [answer["label"] for answer in answers]


def mlserver(place: str, port: int) -> None:
    """Serves by MLServer, in this process alone."""
    from mlserver import MLModel, MLServer, ModelSettings, Settings
    from mlserver.codecs import StringCodec
    from mlserver.types import InferenceRequest, InferenceResponse

    class Runtime(MLModel):
        async def load(self) -> bool:
            self._answers = Answers(place)
            return True

        async def predict(self, payload: InferenceRequest) -> InferenceResponse:
            labels = await self._answers.labels(
                StringCodec.decode_input(payload.inputs[0]))
            return InferenceResponse(
                model_name=self.name, id=payload.id,
                outputs=[StringCodec.encode_output("label", labels)])

    sys.modules["other_servers"] = sys.modules["__main__"]
    Runtime.__module__, Runtime.__qualname__ = "other_servers", "Runtime"
    globals()["Runtime"] = Runtime  # MLServer imports it by its name
    server = MLServer(Settings(
        host="127.0.0.1", http_port=port, grpc_port=port + 1, metrics_endpoint=None,
        parallel_workers=0, debug=False))
    asyncio.run(server.start([ModelSettings(name=MODEL, implementation=Runtime)]))


def kserve(place: str, port: int) -> None:
    """Serves by KServe's SDK, in this process alone."""
    from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

    class Predictor(Model):
        def __init__(self):
            super().__init__(MODEL)
            self._answers = Answers(place)
            self.ready = True

        async def predict(self, payload: InferRequest, headers=None) -> InferResponse:
            texts = payload.inputs[0].data
            labels = await self._answers.labels(list(texts))
            output = InferOutput(name="label", shape=[len(labels)], datatype="BYTES",
                                 data=labels)
            return InferResponse(response_id=payload.id or "", model_name=MODEL,
                                 infer_outputs=[output])

    ModelServer(http_port=port, enable_grpc=False, workers=1,
                access_log_format=None).start([Predictor()])


if __name__ == "__main__":
    {"mlserver": mlserver, "kserve": kserve}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
