"""A policy that learns from its own replies: opened with its adapter and its reference, trained, saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glasshouse.alignment.diagnostics import tell_alarms
from glasshouse.alignment.experience import RolloutConfig, RolloutObjective, Sampler
from glasshouse.alignment.judge import Judge
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.reference import Reference, open_reference
from glasshouse.alignment.sft import add_replay, encode_examples, merged
from glasshouse.alignment.value_head import remove_value_head
from glasshouse.data import PackedBatches, Shards, ShardWriter
from glasshouse.model import Transformer, load, save
from glasshouse.model.lora import add_adapter
from glasshouse.model.peft_folder import save_adapter
from glasshouse.tokenizer import Tokenizer
from glasshouse.training import NextToken, train

JudgeOf = Callable[[Transformer], Judge]
"""Makes a judge that shares the weights of the policy, which carries its adapter by then."""


@dataclass(frozen=True)
class Policy:
    """`model` is what trains; with lora, its base is frozen and is the reference where no other is named."""

    folder: str | Path
    model: Transformer
    tokenizer: Tokenizer
    reference: Reference | None  # None: a copy of the folder, to be opened where one is needed
    config: RolloutConfig

    @classmethod
    def open(cls, folder: str | Path, config: RolloutConfig) -> Policy:
        """Raises ModelError for a reference of other shapes or with another tokenizer."""
        model, tokenizer = load(folder), Tokenizer.load(folder)
        reference = None
        if config.reference is not None:
            reference = open_reference(config.reference, model, tokenizer)
        elif config.lora is not None:
            reference = Reference()
        if config.lora is not None:
            add_adapter(model, config.lora, seed=config.seed)
        return cls(folder, model, tokenizer, reference, config)

    def sampler(
        self,
        examples: Iterable[Mapping[str, Any]],
        judge: Judge | JudgeOf,
        gold: Judge | None = None,
        *,
        compared: bool = True,
    ) -> Sampler:
        """What gives experience; `compared` with the reference or not. Raises DataError without a prompt."""
        room = self.config.sequence_length - self.config.max_new_tokens
        prompts = Prompts.encode(examples, self.tokenizer, room)
        judge = judge if isinstance(judge, Judge) else judge(self.model)
        reference = (self.reference or Reference(load(self.folder).eval())) if compared else None
        return Sampler(prompts, self.tokenizer, judge, self.config, reference, gold)

    def rehearsal(
        self, conversations: Iterable[Mapping[str, Any]], out: Path, replay: Iterable[str] = ()
    ) -> NextToken | None:
        """What is rehearsed with ptx_coef of conversations {"messages": [...]}, encoded in `out`/rehearsal.

        `replay` are texts of pre-training, of which ptx_replay says how many are taken. Raises DataError
        when none is left.
        """
        config = self.config
        if not config.ptx_coef:
            return None
        with ShardWriter(out / "rehearsal", self.tokenizer.vocab_size) as writer:
            counts, tokens = encode_examples(conversations, self.tokenizer, writer, config.sequence_length)
            add_replay(replay, self.tokenizer, writer, int(config.ptx_replay * tokens), counts)
        shards = Shards(out / "rehearsal")
        return NextToken(PackedBatches(shards, config.sequence_length, config.ptx_rows, config.seed))

    def learn(self, objective: RolloutObjective[Any], out: Path) -> dict[str, Any]:
        """Train on rollouts; returns the loop's summary, counts of prompts and alarms."""
        summary = train(
            self.model, objective, self.config, out, title=objective.name, save_model=self._saver(out)
        )
        prompts = objective.sampler.prompts
        found = [vars(alarm) for alarm in tell_alarms(out / "metrics.jsonl")]
        return {**summary, "prompts": len(prompts), "left_out": prompts.left_out, "alarms": found}

    def _saver(self, out: Path) -> Callable[[Transformer, Path], None]:
        def save_model(trained: Transformer, folder: Path) -> None:
            if self.config.lora is not None:
                save_adapter(trained, self.config.lora, out / "adapter", base=str(self.folder))
                trained = merged(self.folder, out / "adapter")
            remove_value_head(trained)
            save(trained, self.tokenizer, folder)

        return save_model
