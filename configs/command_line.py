"""What every script does at its edges: flags, `--help`, and exit statuses.

A script defines its flags at module level, and ends with `command_line.run(main, __doc__)`.
Nothing heavy is imported before the flags have been read, so that `--help` and typing errors
are answered at once.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from configs import base
from configs.errors import UserError, did_you_mean

BASE_FILE = Path(base.__file__)


def define_config() -> None:
    """Adds `--config=FILE[:ARGUMENT]` and, for every key in it, `--config.KEY=VALUE`."""
    config_flags.DEFINE_config_file(
        'config', None, 'Experiment file such as configs/quickstart.py, with an argument after a colon.'
    )


def run(
    main: Callable[..., int | None],
    documentation: str,
    *,
    takes_words: bool = False,
    needs_config: bool = True,
) -> None:
    """Reads the command line, calls `main` and exits.

    `main` is called without arguments, or with the list of words that are no flags if it `takes_words`. A
    script that defines `--config` may do without one unless it `needs_config`.

    Exit statuses: what `main` returns (None is 0); 2 after a UserError, whose message is all
    that is printed; 130 after Ctrl-C. Other exceptions are bugs and keep their traceback.
    """
    if any(argument in ('-h', '-help', '--help', '--helpfull') for argument in sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # --help | head ends quietly
        print(help_text(documentation))
        sys.exit(0)
    logging.set_verbosity(logging.FATAL)  # Orbax logs each error that it then raises, with its traceback
    sys.excepthook, sys.unraisablehook = _print_exception, _print_unraisable
    try:
        words = _parse(sys.argv, needs_config)
        if words and not takes_words:
            raise UserError(
                f'{words[0]!r} is not a flag: flags are written --name=value. See {sys.argv[0]} --help.'
            )
        sys.exit((main(words) if takes_words else main()) or 0)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _is_echo(error: BaseException | None) -> bool:
    """True of what TensorStore raises for each read or write still under way when one has failed."""
    return isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not _is_echo(error):
        sys.__excepthook__(kind, error, trace)


def _print_unraisable(unraisable: Any) -> None:
    if not _is_echo(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _parse(argv: list[str], needs_config: bool) -> list[str]:
    """Parses `argv` into absl's FLAGS and returns what is none; every mistake in it becomes a UserError."""
    try:
        words = flags.FLAGS(argv)[1:]
        config = flags.FLAGS['config'].value if 'config' in flags.FLAGS else base.get_config()
        keys = flatten(config) if config is not None else {}
    except flags.Error as error:
        raise UserError(f'{str(error).rstrip(".")}. {argv[0]} --help lists the flags.') from error
    except (AttributeError, KeyError, OSError) as error:
        for argument in argv[1:]:
            match = re.match(r'--?(?:no)?config\.([^=]+)', argument)
            if match and match[1] not in documented_keys():
                raise UserError(_unknown_key(match[1])) from error
        raise UserError(f'{error}. --config takes a file such as configs/quickstart.py.') from error
    if not keys and needs_config:
        raise UserError(
            'no experiment given: use --config=FILE, for instance --config=configs/quickstart.py.'
        )
    for key in sorted(set(keys) - set(documented_keys())):
        raise UserError(_unknown_key(key))
    return words


def _unknown_key(key: str) -> str:
    hint = did_you_mean(key, documented_keys())
    return f'config.{key} is not a known key.{hint} All are explained in configs/base.py.'


def check_output(name: str, path: str | None) -> None:
    """Makes the directory of `--NAME=PATH`; UserError if no file can be there, before work is done for it."""
    if not path:
        return
    try:
        Path(path).resolve().parent.mkdir(parents=True, exist_ok=True)
        possible = not Path(path).is_dir()
    except OSError:
        possible = False
    if not possible:
        raise UserError(f'--{name}={path} cannot be written: give a file in a directory that may be made.')


def flatten(config: ConfigDict, prefix: str = '') -> dict[str, Any]:
    """Returns {'section.key': value} of a nested config."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update(flatten(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = value
    return flat


def documented_keys() -> dict[str, tuple[str, str]]:
    """Returns {key: (default, explanation)}, read from the lines of configs/base.py.

    An explanation may go on in the lines below, behind `#` and three spaces.
    """
    pattern = r'^    config\.([\w.]+) = (.+?) +# (.+(?:\n +#   .+)*)$'
    return {
        key: (value, re.sub(r'\n +# +', ' ', comment))
        for key, value, comment in re.findall(pattern, BASE_FILE.read_text(), re.M)
    }


def help_text(documentation: str) -> str:
    """The script's docstring, its flags, and the config's keys when it has a config."""
    lines = [documentation.strip(), '', 'Flags:']
    own = flags.FLAGS.flags_by_module_dict().get(sys.argv[0], [])
    if 'config' in flags.FLAGS:
        own = [flags.FLAGS['config'], *[flag for flag in own if flag.name != 'config']]
    for flag in own:
        default = '' if flag.default in (None, '', []) else f' (default: {flag.default_as_str})'
        lines.append(f'  --{flag.name}: {flag.help}{default}')
    if 'config' in flags.FLAGS:
        lines += ['', 'Config keys, set by --config.KEY=VALUE (defaults of configs/base.py):']
        for key, (default, comment) in documented_keys().items():
            default = re.sub(r'placeholder\(\w+\)', 'None', default)
            lines.append(f'  --config.{key}={default}\n      {comment}')
    return '\n'.join(lines)
