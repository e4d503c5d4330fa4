"""Prepares text for training: learns a tokenizer, then writes tokens in shards.

  python prepare.py --config=configs/quickstart.py [--config.KEY=VALUE …]

data.source says which text: files ending in .txt or .jsonl, plain, .gz or .zst; directories; globs;
several with commas between; or builtin:python-docs, which is on every machine. .csv, .tsv, .parquet, .html
and .warc are read too, Hugging Face datasets (hf:NAME or hf:DIRECTORY) and URLs. With data.target_field
each document is a pair of texts, the input in data.text_field and its answer: .jsonl files have them, and
builtin:docstring-pairs. A part of the documents (data.eval_fraction) is held out for evaluation. The
result goes to data.path; with data.mode=stream only the tokenizer does, and training reads the text itself.

The same command goes on after an interruption, and does nothing once all is finished. The result is
the same, byte for byte, for any number of processes (data.num_workers), and with --engine=ray on the
machines of a Ray cluster. A directory that holds anything else is refused and left as it is.

data.cleaning says what is repaired, replaced and dropped: data.cleaning.preset=pretraining switches all usual
steps on. What became of the text stands in data.path: report.json, report.png, and removed.jsonl.zst, a list
of the documents that were dropped. docs/data.md explains all of it.

  python prepare.py --config=configs/quickstart.py --forget='corpus.jsonl:1024,corpus.jsonl:9216'

removes documents from the shards by their ids, which are in data.path/train/documents.parquet.
"""

from __future__ import annotations

from absl import flags

from configs import command_line

command_line.define_config()
SKIP_DAMAGED = flags.DEFINE_bool('skip_damaged', False, 'The same as --config.data.skip_damaged=True.')
ENGINE = flags.DEFINE_string('engine', None, 'The same as --config.data.engine: processes or ray.')
FORGET = flags.DEFINE_string(
    'forget', None, 'Ids of documents to remove from shards, or a file with one a line.'
)


def main() -> int:
    """Prepares config.data.path and prints a summary; returns the exit status."""
    config = flags.FLAGS.config
    config.data.skip_damaged |= SKIP_DAMAGED.value
    config.data.engine = ENGINE.value or config.data.engine
    from configs import experiment

    experiment.check(config)
    from data import summary
    from data.forgetting import read_ids
    from data.preparation import forget, prepare

    if FORGET.value is not None:
        gone = forget(config, read_ids(FORGET.value))
        print(f'Removed {gone["documents"]:,} documents, {gone["tokens"]:,} tokens, from {config.data.path}.')
        return 0
    try:
        result = prepare(config)
    except KeyboardInterrupt:
        print('\nStopped; finished parts are kept, and the same command goes on from them.', flush=True)
        raise
    summary.show(result)
    return 0


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
