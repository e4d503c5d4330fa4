"""How tokens are chosen: the settings of generation, checked once, under the names of transformers."""

from __future__ import annotations

import dataclasses

from configs.errors import UserError

EARLY_STOPPING = (False, True, 'never')


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The settings of `generation.generate`; all but the length are off by default.

    Attributes:
      max_new_tokens: a text ends here or after eos.
      min_new_tokens: eos is not chosen before.
      temperature: divides the logits; 0 takes the most probable token. Not used with beams, nor are
        top_k and top_p.
      top_k: only the k most probable tokens may be drawn; 0: all.
      top_p: only the smallest set of most probable tokens may be drawn whose probabilities, after
        temperature and top_k, sum to p or more (Holtzman et al. 2020); 1: all.
      repetition_penalty: divides positive scores of the tokens that the prompt or the text already has,
        and multiplies negative ones (Keskar et al. 2019); 1: none.
      no_repeat_ngram_size: no sequence of so many tokens occurs twice, the prompt included; 0: any may.
      num_beams: continuations kept side by side in beam search; 1: no search.
      length_penalty: a finished beam's log-probability is divided by its length to this power, so that
        positive values favour long texts.
      early_stopping: True ends the search with num_beams finished beams; False once the best running beam
        would not improve on them if it ended now; 'never' once it cannot at any length.
      eos_ids: tokens that end a text; None: the tokenizer's eos.
      num_return_sequences: how many of a prompt's beams are returned, best first. For several samples
        of one prompt, give it several times.

    Raises:
      UserError: if a value is out of range.
    """

    max_new_tokens: int = 50
    min_new_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1
    eos_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name in ('max_new_tokens', 'num_beams', 'num_return_sequences'):
            if getattr(self, name) < 1:
                raise UserError(f'{name}={getattr(self, name)} must be at least 1.')
        for name, meaning in {
            'min_new_tokens': '0 lets a text end at once',
            'temperature': '0 takes the most probable token',
            'top_k': '0 leaves all tokens',
            'no_repeat_ngram_size': '0 lets everything repeat',
        }.items():
            if getattr(self, name) < 0:
                raise UserError(f'{name}={getattr(self, name)} must be at least 0 ({meaning}).')
        if not 0 < self.top_p <= 1:
            raise UserError(f'top_p={self.top_p} is not in (0, 1] (1 leaves all tokens).')
        if self.repetition_penalty <= 0:
            raise UserError(
                f'repetition_penalty={self.repetition_penalty} must be positive (1 changes nothing).'
            )
        if self.early_stopping not in EARLY_STOPPING:
            raise UserError(f"early_stopping={self.early_stopping!r} must be False, True or 'never'.")
        if self.num_return_sequences > self.num_beams:
            raise UserError(
                f'num_return_sequences={self.num_return_sequences} exceeds num_beams={self.num_beams}; '
                'ask for at most as many texts as there are beams.'
            )
