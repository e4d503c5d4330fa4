"""Tokenizers of a few hundred pieces, in the files in which their large kin are published."""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ['the quick brown fox jumps over the lazy dog', 'The lazy fox', 'def f(x):\n\treturn x'] * 20
CHAT = (
    "{% if messages[0]['role'] == 'system' %}\n    {{ raise_exception('no system') }}\n{% endif %}\n"
    '{{ bos_token }}{% for message in messages %}\n'
    "[{{ message['role'] }}] {{ message['content'] | tojson }}{{ eos_token }}\n"
    '{% endfor %}\n{% if add_generation_prompt %}[assistant] {% endif %}'
)


def write_json(directory: Path, **contents: dict) -> None:
    directory.mkdir(exist_ok=True, parents=True)
    for name, content in contents.items():
        (directory / f'{name}.json').write_text(json.dumps(content), encoding='utf-8')


def gpt2(directory: Path) -> Path:
    """Writes tokenizer.json, vocab.json, merges.txt and a config; <|endoftext|> is the last id."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=319, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(['<|endoftext|>'])
    write_json(directory, tokenizer_config={'tokenizer_class': 'GPT2Tokenizer', 'chat_template': CHAT})
    end = backend.token_to_id('<|endoftext|>')
    write_json(directory, config={'model_type': 'gpt2', 'bos_token_id': end, 'eos_token_id': end})
    backend.save(str(directory / 'tokenizer.json'))
    vocabulary = backend.get_vocab()
    model = json.loads(backend.to_str())['model']
    merges = '\n'.join(' '.join(pair) for pair in model['merges'])
    (directory / 'vocab.json').write_text(json.dumps(vocabulary), encoding='utf-8')
    (directory / 'merges.txt').write_text(f'#version: 0.2\n{merges}\n', encoding='utf-8')
    return directory


def llama(directory: Path) -> Path:
    """Writes tokenizer.json, its settings and a chat template; <unk> 0, <s> 1, </s> 2, then the bytes."""
    special = ['<unk>', '<s>', '</s>']
    pieces = {piece: token for token, piece in enumerate([*special, *(f'<0x{i:02X}>' for i in range(256))])}
    learnt = Tokenizer(models.BPE(unk_token='<unk>'))
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    learnt.train_from_iterator(
        [text.replace('\n', ' ').replace('\t', ' ') for text in TEXTS],
        trainers.BpeTrainer(vocab_size=90, show_progress=False),
    )
    content = json.loads(learnt.to_str())['model']
    for piece in sorted(content['vocab'], key=content['vocab'].get):
        pieces.setdefault(piece, len(pieces))
    merges = [tuple(pair) for pair in content['merges']]
    backend = Tokenizer(models.BPE(pieces, merges, unk_token='<unk>', fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first', split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    backend.add_special_tokens(special)
    backend.post_processor = processors.TemplateProcessing(
        single='<s> $A', pair='<s> $A <s>:1 $B:1', special_tokens=[('<s>', 1)]
    )
    names = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    write_json(directory, tokenizer_config={'tokenizer_class': 'LlamaTokenizer', 'legacy': False, **names})
    (directory / 'chat_template.jinja').write_text(CHAT, encoding='utf-8')
    backend.save(str(directory / 'tokenizer.json'))
    return directory


def bert(directory: Path) -> Path:
    """Writes vocab.txt and a config: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4, then pieces."""
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    backend = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    write_json(directory, tokenizer_config={'tokenizer_class': 'BertTokenizer', 'do_lower_case': True})
    vocabulary = backend.get_vocab()
    lines = sorted(vocabulary, key=vocabulary.get)
    (directory / 'vocab.txt').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return directory


def t5(directory: Path, **options) -> Path:
    """Writes spiece.model and settings: <pad> 0, </s> 1, <unk> 2, pieces, <extra_id_99> … <extra_id_0>."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, '数据 fine（数据）']), model_writer=model, model_type='unigram',
        vocab_size=60, hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
        num_threads=1, **options,
    )  # fmt: skip
    names = {'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}
    names['additional_special_tokens'] = [f'<extra_id_{number}>' for number in range(100)]
    write_json(directory, tokenizer_config={'extra_ids': 100, **names}, special_tokens_map=names)
    write_json(directory, config={'model_type': 't5', 'eos_token_id': 1, 'pad_token_id': 0})
    (directory / 'spiece.model').write_bytes(model.getvalue())
    return directory
