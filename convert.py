"""Converts models between Lathe's runs and Hugging Face's format, both ways.

  python convert.py --from=gpt2/ --to=runs/gpt2
  python convert.py --from=runs/quickstart --to=exported/ --format=huggingface
  python convert.py --from=old-gpt2/ --pickles --to=gpt2/ --format=huggingface

--from takes whatever --checkpoint takes elsewhere: a run (its best checkpoint) or RUN@STEP, a directory in
Hugging Face's format, hf:NAME from the hub, or FILE.gguf. What is written is a new directory: a run that
every command opens, or config.json, safetensors and tokenizer files that transformers loads.
Commands also read published models directly; a run is for going on from there.

Weights are read from safetensors. --pickles reads pytorch_model.bin instead, by PyTorch's restricted reader,
which refuses whatever is no tensor; PyTorch must be installed.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from configs import command_line
from parallel.peers import ending_together

FROM = flags.DEFINE_string('from', None, 'Run, RUN@STEP, directory or hf:NAME to read.', required=True)
TO = flags.DEFINE_string('to', None, 'Directory to write; must not exist, or be empty.', required=True)
FORMAT = flags.DEFINE_enum('format', 'lathe', ('lathe', 'huggingface'), 'What to write.')
PICKLES = flags.DEFINE_bool('pickles', False, "Read PyTorch's pickles, which you trust, not safetensors.")


def main() -> None:
    """Reads the model, writes it, and says what was written."""
    import jax

    from parallel import processes
    from training import pretrained, run

    processes.start()
    target = pretrained.new_directory(Path(TO.value))
    opened = run.open_run(FROM.value, pickles=PICKLES.value)
    jax.set_mesh(opened.mesh)
    if FORMAT.value == 'huggingface':
        pretrained.save(target, opened.transformer.config, opened.params, opened.tokenizer)
    else:
        run.save_as_run(opened, target)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(opened.params))
    print(f'wrote {num_params:,} parameters of {FROM.value} to {target}')


if __name__ == '__main__':
    command_line.run(ending_together(main), __doc__ or '')
