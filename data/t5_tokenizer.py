"""The tokenizer that T5 and its kin publish as spiece.model alone, in the form the tokenizers library reads.

A unigram SentencePiece model (Kudo 2018) with its own rules of normalisation and, behind its pieces, the
sentinels of span corruption (Raffel et al. 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from configs.errors import UserError
from data.pieces import SENTINEL
from data.sentencepiece_export import CONTROL, SPACE_SIGN, UNIGRAM, USER_DEFINED

FIRST_PIECES = ['<pad>', '</s>', '<unk>']
SENTINELS = 100  # where the settings do not say how many


def backend(model: bytes, settings: Mapping[str, Any], kind: str, origin: str) -> Tokenizer:
    """Returns what transformers makes of a spiece.model.

    Args:
      model: the file's bytes.
      settings: of tokenizer_config.json, of which extra_ids counts, the number of sentinels.
      kind: the class of the tokenizer or the type of the model, '' if no file tells.
      origin: the directory it comes from, for messages.

    <extra_id_0> is the last id. Raises UserError for the tokenizers of other families, which read a file
    of this name otherwise.
    """
    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    proto.ParseFromString(model)
    first = [piece.piece for piece in proto.pieces[: len(FIRST_PIECES)]]
    if (
        proto.trainer_spec.model_type != UNIGRAM
        or first != FIRST_PIECES
        or 't5' not in (kind or 't5').lower()
    ):
        raise UserError(
            f'{origin}/spiece.model is not of the T5 family (kind {kind or "not given"}; first pieces '
            f'{", ".join(first)}; expected a unigram model that begins with {", ".join(FIRST_PIECES)}). Save '
            'its tokenizer with transformers, save_pretrained, which writes a tokenizer.json, and give that.'
        )
    sentinels = [SENTINEL.format(number) for number in range(settings.get('extra_ids', SENTINELS))]
    scores = [(piece.piece, piece.score) for piece in proto.pieces] + [
        (name, 0.0) for name in sentinels[::-1]
    ]
    fast = Tokenizer(models.Unigram(scores, unk_id=FIRST_PIECES.index('<unk>')))
    if rules := proto.normalizer_spec.precompiled_charsmap:
        fast.normalizer = normalizers.Precompiled(rules)
    metaspace = {'replacement': SPACE_SIGN, 'prepend_scheme': 'always', 'split': True}
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**metaspace)]
    )
    fast.decoder = decoders.Metaspace(**metaspace)
    named = [
        (piece.piece, piece.type == CONTROL)
        for piece in proto.pieces
        if piece.type in (CONTROL, USER_DEFINED)
    ]
    named += [(name, True) for name in ('<unk>', *sentinels)]
    fast.add_tokens([AddedToken(name, special=special, normalized=False) for name, special in named])
    end = '</s>'
    fast.post_processor = processors.TemplateProcessing(
        single=['$A', end], pair=['$A', end, '$B', end], special_tokens=[(end, FIRST_PIECES.index(end))]
    )
    return fast
