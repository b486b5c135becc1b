"""A model of ours inside EleutherAI's lm-eval, in this process:

    from lm_eval import simple_evaluate
    simple_evaluate(model=LMEvalModel(glasshouse.load("runs/pocket")), tasks=["blimp"])

Over HTTP the same model is scored by lm-eval's own `local-completions` against `glasshouse serve`.
Importing this module needs lm-eval (`pip install lm-eval`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from lm_eval.api.instance import Instance  # type: ignore[import-not-found]
from lm_eval.api.model import TemplateLM  # type: ignore[import-not-found]
from lm_eval.models.utils import handle_stop_sequences  # type: ignore[import-not-found]
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # type: ignore[import-not-found]
from tqdm import tqdm

from glasshouse.inference import LanguageModel
from glasshouse.inference.engine import Engine
from glasshouse.inference.request import Delta, PromptRead, Request, TokenScore
from glasshouse.inference.sampling import Sampling

AT_ONCE = 32
"""Requests in the engine at a time."""

MAX_NEW_TOKENS = 256
"""Of tasks that set no limit; lm-eval's own default."""


class LMEvalModel(TemplateLM):
    """lm-eval's three kinds of requests, answered by the engine."""

    backend = "causal"

    def __init__(self, model: LanguageModel, engine: Engine | None = None) -> None:
        super().__init__()
        self.engine = engine or Engine(model)
        self.tokenizer: Any = model.tokenizer
        self.max_length = model.context

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        return self.tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        return "glasshouse"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        return self.tokenizer.encode_with_special(string)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self.tokenizer.render(chat_history, add_generation_prompt=add_generation_prompt)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **options: Any
    ) -> list[tuple[float, bool]]:
        """For each (texts, context, continuation): the sum of the continuation's log-probabilities in
        nats, and whether each of its tokens was the likeliest. What does not fit is cut off on the left."""
        asked = [
            Request(
                prompt=tuple((context + continuation)[-self.max_length :]),
                max_new_tokens=0,
                prompt_logprobs=1,
            )
            for _, context, continuation in requests
        ]
        scored = []
        for (texts, _, continuation), (read, _) in zip(
            requests, self._answers(asked, disable_tqdm), strict=True
        ):
            assert read.scores is not None
            scores = [score for score in read.scores[-len(continuation) :] if score is not None]
            scored.append((sum(score.logprob for score in scores), all(map(_likeliest, scores))))
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, scored[-1])
        return scored

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability in nats of whole texts, in windows of the context's length."""
        windows = []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            cuts = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length - 1, context_len=1)
            windows.append([(None, *make_disjoint_window(cut)) for cut in cuts])
        flat = [window for text in windows for window in text]
        scores = iter(self._loglikelihood_tokens(flat, disable_tqdm))
        totals = []
        for request, text in zip(requests, windows, strict=True):
            totals.append(sum(next(scores)[0] for _ in text))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, totals[-1])
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked = []
        for request in requests:
            context, options = cast(tuple[str, dict[str, Any]], request.args)
            ids = self.tok_encode(context)
            room = options.get("max_gen_toks", options.get("max_tokens", MAX_NEW_TOKENS))
            temperature = options.get("temperature", 0.0) if options.get("do_sample", True) else 0.0
            asked.append(
                Request(
                    prompt=tuple(ids[-max(self.max_length - room, 1) :]),
                    max_new_tokens=room,
                    sampling=Sampling.parse(
                        {"temperature": temperature, "top_p": options.get("top_p")}, source="gen_kwargs"
                    ),
                    stop=tuple(handle_stop_sequences(options.get("until"), eos=None)),
                    stop_ids=self.engine.model.stop_ids,
                )
            )
        texts = [text for _, text in self._answers(asked, disable_tqdm)]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _answers(self, requests: list[Request], quiet: bool) -> list[tuple[PromptRead, str]]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(tqdm(pool.map(self._answer, requests), total=len(requests), disable=quiet))

    def _answer(self, request: Request) -> tuple[PromptRead, str]:
        read, text = PromptRead(0), ""
        for event in self.engine.events(request):
            if isinstance(event, Delta):
                text += event.text
            else:
                read = event
        return read, text


def _likeliest(score: TokenScore) -> bool:
    return score.logprob >= score.top[0][1]
