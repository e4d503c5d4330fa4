"""lm-evaluation-harness: its benchmarks, asked of causal checkpoints.

The harness (Gao et al. 2024, package lm-eval) brings prompts, data, metrics and their standard errors; Lathe
computes likelihoods and texts. Every process computes all requests together, on one mesh.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs.errors import UserError, did_you_mean
from model.decoding import Decoding
from parallel import processes
from training import likelihood
from training.run import Run
from training.sampling import complete
from training.streaming import up_to

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.utils import normalize_gen_kwargs
    from lm_eval.tasks import TaskManager
    from tqdm import tqdm
except ImportError as error:
    raise UserError(
        f'--task=harness:… needs lm-evaluation-harness ({error}): '
        '.venv/bin/pip install -r requirements-evaluation.txt'
    ) from error

PREFIX = 'harness:'
NEW_TOKENS = 256  # of a text, where a benchmark does not say
SETTINGS = {field.name for field in dataclasses.fields(Decoding)} - {'max_new_tokens', 'num_return_sequences'}


@dataclasses.dataclass(frozen=True)
class Benchmarks:
    """What is asked: names of the harness's tasks, groups and tags, found by `manager`."""

    names: Sequence[str]
    manager: TaskManager
    limit: int | None = None  # examples of each at most; None: all
    chat: bool = False  # whether prompts are put into the model's chat template


def load(task: str, directory: str | None, *, limit: int = 0, chat: bool = False) -> Benchmarks:
    """Finds benchmarks and their data, before any model is opened.

    Args:
      task: 'harness:' and names with commas, of which '*' stands for any characters.
      directory: of task YAMLs besides the harness's own; None: only those.
      limit: examples of each at most; 0: all.
      chat: put prompts into the model's chat template.

    Raises UserError for names that are not known, data that cannot be read, and benchmarks that run code.
    """
    patterns = [name for name in task.removeprefix(PREFIX).split(',') if name]
    if not patterns:
        raise UserError(f'--task={task} names no benchmark; give for instance --task={PREFIX}lambada_openai.')
    if directory and not Path(directory).is_dir():
        raise UserError(f'--data={directory} is no directory; benchmarks take one with task YAMLs in it.')
    manager = _find(patterns, directory)
    names = list(dict.fromkeys(name for pattern in patterns for name in _matching(pattern, manager)))
    try:
        tasks = manager.load(names)['tasks']
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f'--task={task} cannot be loaded ({type(error).__name__}: {error}). Its data come from the '
            'Hugging Face hub, or from files that a YAML in --data=DIRECTORY names.'
        ) from error
    for name, each in tasks.items():
        if getattr(each, 'UNSAFE_CODE', False) or getattr(each, 'MULTIMODAL', False):
            raise UserError(f'{name} runs code that the model writes, or shows pictures; leave it out.')
    return Benchmarks(names, manager, limit or None, chat)


def _find(patterns: Sequence[str], directory: str | None) -> TaskManager:
    """Returns an index of benchmarks: that of the directory if it has all; the harness's own take long."""
    if directory:
        manager = TaskManager(include_path=directory, include_defaults=False)
        if set(patterns) <= set(manager.all_subtasks):
            return manager
    return TaskManager(include_path=directory)


def _matching(pattern: str, manager: TaskManager) -> list[str]:
    names = manager.match_tasks([pattern])
    if not names:
        raise UserError(
            f'--task={PREFIX}{pattern} is no benchmark of lm-evaluation-harness.'
            f'{did_you_mean(pattern, manager.all_tasks)} `lm_eval ls tasks` lists them; your own are YAMLs '
            'in --data=DIRECTORY.'
        )
    return names


def evaluate(opened: Run, benchmarks: Benchmarks, name: str) -> tuple[dict[str, Any], list[str]]:
    """Returns what the harness finds of a checkpoint, and notes for its reader; `name` is for messages."""
    model = LatheLM(opened, name)
    results = simple_evaluate(
        model,
        tasks=list(benchmarks.names),
        task_manager=benchmarks.manager,
        limit=benchmarks.limit,
        apply_chat_template=benchmarks.chat,
    )
    assert results is not None, 'every process is of rank 0'
    return dict(results), [f'{name}: {number:,} {what}' for what, number in model.cut.items() if number]


class LatheLM(TemplateLM):
    """A causal checkpoint as the harness sees a model; UserError for one of another structure.

    cut: counts of requests of which not all was read, by what happened to them.
    """

    def __init__(self, opened: Run, name: str):
        super().__init__()
        config = opened.transformer.config
        if config.structure != 'decoder':
            raise UserError(
                f'--checkpoint={name} is of structure {config.structure!r}; the benchmarks of '
                'lm-evaluation-harness ask for the next tokens, which causal decoders alone give.'
            )
        self._opened, self._tokenizer, self._model = opened, opened.tokenizer, opened.transformer
        self._name, self._max_length = name, config.max_length
        self._quiet = not processes.is_main()
        self.cut: Counter[str] = Counter()

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that stands before a text without context."""
        return self._tokenizer.bos_id

    @property
    def tokenizer_name(self) -> str:
        """What tells requests apart that the harness keeps."""
        return self._tokenizer.fingerprint

    def get_model_info(self) -> dict[str, Any]:
        """Returns what the harness writes down about the model."""
        opened = self._opened
        return {
            'checkpoint': self._name,
            'step': opened.step,
            'model_num_parameters': sum(leaf.size for leaf in jax.tree.leaves(opened.params)),
            'model_dtype': self._model.config.compute_dtype,
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Returns ids; None begins a text as the model is used to it, unless it begins so already."""
        ids = self._tokenizer.encode(string).tolist()
        if add_special_tokens is False or ids[:1] == [self._tokenizer.bos_id]:
            return ids
        return self._tokenizer.encode_prompt(string).tolist()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns messages as a prompt; without add_generation_prompt, the last is an answer's beginning."""
        if add_generation_prompt:
            return self._tokenizer.apply_chat(chat_history)
        return self._tokenizer.apply_chat(chat_history[:-1]) + chat_history[-1]['content']

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As the harness does it; where one token holds the end of both, they are encoded apart."""
        known, asked = super()._encode_pair(context, continuation)
        return known, asked or self.tok_encode(continuation, add_special_tokens=False)

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        cut = f'questions with an answer exceed {self._max_length} tokens and lost their beginning'
        self.cut[cut] += sum(len(context) + len(asked) > self._max_length + 1 for context, asked in pairs)
        return self._score(pairs)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Returns log p of whole texts of any length, after the begin symbol.

        Where a tokenizer puts one in front itself, as LLaMA's does, the harness's own models score that too.
        """
        pairs, owners = [], []
        for number, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0], add_special_tokens=False)
            for window in likelihood.windows(tokens, self.prefix_token_id, self._max_length):
                pairs.append(window)
                owners.append(number)
        totals = [0.0] * len(requests)
        for owner, (log_p, _) in zip(owners, self._score(pairs), strict=True):
            totals[owner] += log_p
        return totals

    def _score(self, pairs: Sequence[likelihood.Pair]) -> list[tuple[float, bool]]:
        scores: list[tuple[float, bool]] = [(0.0, True)] * len(pairs)
        found = likelihood.score(self._model, self._opened.params, pairs)
        for number, each in tqdm(found, f'{self._name}: likelihoods', len(pairs), disable=self._quiet):
            scores[number] = each
        return scores

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns what the model writes after each context, up to a stop string, its end or max_gen_toks."""
        alike: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            alike[json.dumps(request.arguments[1], sort_keys=True)].append(number)
        texts = [''] * len(requests)
        with tqdm(total=len(requests), desc=f'{self._name}: texts', disable=self._quiet) as progress:
            for settings, numbers in alike.items():
                decoding, stop = read_settings(json.loads(settings))
                prompts = [self._prompt(requests[number].args[0], decoding) for number in numbers]
                for index, text in self._write(prompts, decoding, stop):
                    texts[numbers[index]] = text
                    progress.update()
        return texts

    def _prompt(self, context: str, decoding: Decoding) -> np.ndarray:
        """Returns the ids of a context, the last ones that leave room for an answer."""
        room = self._max_length - decoding.max_new_tokens
        if room < 1:
            raise UserError(
                f'a benchmark asks for max_gen_toks={decoding.max_new_tokens}, and {self._name} holds '
                f'{self._max_length} tokens in all; choose a model that holds more, or lower it in a YAML of '
                'your own.'
            )
        ids = self.tok_encode(context) or [self.prefix_token_id]
        self.cut['prompts left no room for an answer and lost their beginning'] += len(ids) > room
        return np.array(ids[-room:], np.int32)

    def _write(
        self, prompts: Sequence[np.ndarray], decoding: Decoding, stop: Sequence[str]
    ) -> Iterator[tuple[int, str]]:
        """Yields (number of a prompt, its text), those of a batch about as long."""
        order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number]))
        longest = len(prompts[order[0]]) + decoding.max_new_tokens
        size = likelihood.batch_rows(longest, 1, self._model.config.vocab_size, len(prompts))
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            made = complete(
                self._model,
                self._opened.params,
                self._tokenizer,
                [prompts[number] for number in numbers],
                decoding,
                key=jax.random.fold_in(jax.random.key(self._opened.config.seed), start),
                stop=stop if decoding.num_beams == 1 else (),
                with_prompt=False,
            )
            yield from zip(numbers, (up_to(text, stop) for text in made), strict=True)


def read_settings(asked: dict[str, Any]) -> tuple[Decoding, list[str]]:
    """Returns a benchmark's `generation_kwargs` as Decoding and stop strings; UserError for unknown ones.

    What a benchmark does not say is off: nothing is taken from a checkpoint's generation_config.json.
    """
    settings: dict[str, Any] = {**normalize_gen_kwargs(asked, NEW_TOKENS)}
    stop = [string for string in settings.pop('until') if string]
    new_tokens, draws = settings.pop('max_gen_toks'), settings.pop('do_sample')
    if unknown := sorted(settings.keys() - SETTINGS):
        raise UserError(
            f'a benchmark asks for generation_kwargs {", ".join(unknown)}; supported are do_sample, '
            f'max_gen_toks, until, {", ".join(sorted(SETTINGS))}.'
        )
    settings['temperature'] = settings.get('temperature', 1.0) if draws else 0.0
    return Decoding(max_new_tokens=new_tokens, **settings), stop
