"""A SentencePiece model in the form that transformers and the tokenizers library read.

Ids and texts are the same, with two exceptions, both habits of that library: U+2581, which Lathe spells in
bytes, reads as a space, and the name of a special token, such as '<s>', in a text is that token.
"""

from __future__ import annotations

import json
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, normalizers, processors

from configs.errors import UserError
from data import pieces

SPACE_SIGN = '\u2581'
UNIGRAM, BPE = 1, 2  # trainer_spec.model_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # piece.type


def files(model: bytes) -> dict[str, bytes]:
    """Returns {name: bytes} of tokenizer.json and tokenizer_config.json for a SentencePiece model.

    Raises UserError for a model that normalises text or lacks byte pieces, which Lathe does not train.
    """
    proto = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    proto.ParseFromString(model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if normalizer.name != 'identity' or normalizer.add_dummy_prefix or not trainer.byte_fallback:
        raise UserError(
            f'the tokenizer normalises text (rule {normalizer.name!r}) or has no byte pieces; only those '
            'that prepare.py trains can be written as tokenizer.json.'
        )
    if trainer.model_type == BPE:
        fast = Tokenizer(_bpe(proto))
    else:
        scores = [(piece.piece, piece.score) for piece in proto.pieces]
        fast = Tokenizer(models.Unigram(scores, unk_id=trainer.unk_id, byte_fallback=True))
    fast.normalizer = normalizers.Replace(' ', SPACE_SIGN)
    fast.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_SIGN, ' '), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [piece.piece for piece in proto.pieces if piece.type in (UNKNOWN, CONTROL)]
    fast.add_special_tokens(special)
    bos = trainer.bos_piece
    fast.post_processor = processors.TemplateProcessing(
        single=f'{bos}:0 $A:0', pair=f'{bos}:0 $A:0 {bos}:1 $B:1', special_tokens=[(bos, trainer.bos_id)]
    )
    settings: dict[str, Any] = {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'bos_token': bos,
        'eos_token': trainer.eos_piece,
        'unk_token': trainer.unk_piece,
        'clean_up_tokenization_spaces': False,
    }
    if mask := next((name for name in pieces.MASKS if name in special), None):
        settings['mask_token'] = mask
    if trainer.pad_id >= 0:
        settings['pad_token'] = trainer.pad_piece
    return {
        'tokenizer.json': fast.to_str(pretty=True).encode(),
        'tokenizer_config.json': (json.dumps(settings, indent=2) + '\n').encode(),
    }


def _bpe(proto: Any) -> models.BPE:
    """Returns the merges that SentencePiece leaves implicit: the halves of each piece, the best first."""
    vocabulary = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    joined = {piece.piece: piece.score for piece in proto.pieces if piece.type in (NORMAL, USER_DEFINED)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(joined, key=lambda piece: (-joined[piece], vocabulary[piece]))
        for cut in range(1, len(piece))
        if piece[:cut] in joined and piece[cut:] in joined
    ]
    unknown = proto.trainer_spec.unk_piece
    return models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
