"""Prepares text for training: learns a tokenizer, then writes tokens in shards.

  python prepare.py --config=configs/quickstart.py [--config.KEY=VALUE …]

data.source says which text: files ending in .txt or .jsonl, plain, .gz or .zst; directories; globs;
several with commas between; or builtin:python-docs, which is on every machine. With data.target_field
each document is a pair of texts, the input in data.text_field and its answer: .jsonl files have them, and
builtin:docstring-pairs. A part of the documents (data.eval_fraction) is held out for evaluation. The
result goes to data.path; with data.mode=stream only the tokenizer does, and training reads the text itself.

The same command goes on after an interruption, and does nothing once all is finished. The result is
the same, byte for byte, for any number of processes (data.num_workers). A directory that holds
anything else is refused and left as it is.
"""

from __future__ import annotations

from absl import flags

from configs import command_line

command_line.define_config()


def main() -> int:
    """Prepares config.data.path and prints a summary; returns the exit status."""
    config = flags.FLAGS.config
    from configs import experiment

    experiment.check(config)
    from data import summary
    from data.preparation import prepare

    try:
        result = prepare(config)
    except KeyboardInterrupt:
        print('\nStopped; finished parts are kept, and the same command goes on from them.', flush=True)
        raise
    summary.show(result)
    return 0


if __name__ == '__main__':
    command_line.run(main, __doc__ or '')
