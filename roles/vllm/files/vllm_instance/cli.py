# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command line. Exit status: 0 done, 1 not done, 2 a command that does not exist, 78 an instance that is not to be started."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys

from . import exits, instance, orders, status, watch
from .definition import Broken, read
from .host import ERROR, NAME, Failed, Host
from .state import Store


def main(arguments):
    """Do what the command line says; returns the exit status."""
    options = _parser().parse_args(arguments)
    host = Host(options.root)
    try:
        return options.do(host, options) or 0
    except (Broken, instance.Refused) as problem:
        host.say(options.name, str(problem), ERROR)
        # Nothing that another try would mend: the unit has RestartPreventExitStatus=78.
        return exits.REFUSED if options.do is _run else 1
    except instance.NotYet as problem:
        host.say(options.name, str(problem), ERROR)
        return exits.NOT_YET
    except Failed as problem:
        host.say(options.name, str(problem), ERROR)
        return 1


def _run(host, options):
    instance.run(host, read(host, options.name))


def _stop(host, options):
    instance.stop(host, read(host, options.name), os.environ)


def _exited(host, options):
    exits.exited(host, options.name, os.environ)


def _watch(host, options):
    watch.watch(host, options.interval)


def _status(host, options):
    names = [options.name] if options.name else host.names()
    if options.name:
        # An instance that does not exist is an error, one that is broken is part of the answer.
        if options.name not in host.names():
            read(host, options.name)
    described = status.collect(host, names)
    if options.json:
        print(json.dumps({"instances": described}, indent=1))
    elif described:
        print("\n".join(status.table(described)))
    else:
        print("There is no instance on this host.")


def _reset(host, options):
    orders.reset(host, read(host, options.name), options.rung, start=options.start)


def _release(host, options):
    orders.release(host, read(host, options.name))


def _command(host, options):
    definition = read(host, options.name)
    state = Store(host, definition.name).read()
    print(shlex.join(definition.full_command(state)))
    if definition.supervisor == "compose":
        print("# the engine's arguments: " + shlex.join(definition.argv(state)))


def _parser():
    parser = argparse.ArgumentParser(prog="vllm-instance", description="Starts, watches and mends the vLLM instances of this host.")
    parser.add_argument("--root", default="/", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name, do, text, instance_name=True):
        added = commands.add_parser(name, help=text, description=text)
        if instance_name:
            added.add_argument("name", metavar="NAME", type=_name)
        added.set_defaults(do=do)
        return added

    command("run", _run, "start an instance in its turn (what its unit runs)")
    command("stop", _stop, "ask an instance to stop, and give its requests time (what its unit runs to stop it)")
    command("exited", _exited, "judge the end of an instance (what its unit runs afterwards)")
    watching = command("watch", _watch, "watch all instances (vllm-watchdog.service)", instance_name=False)
    watching.add_argument("--interval", type=float, default=5, metavar="SECONDS", help="between two looks")
    shown = command("status", _status, "show what runs, on which rung, and what happened", instance_name=False)
    shown.add_argument("name", metavar="NAME", nargs="?", type=_name)
    shown.add_argument("--json", action="store_true", help="for programs")
    again = command("reset", _reset, "go back to the plan's first choice, or to another rung")
    again.add_argument("--rung", type=int, default=0, metavar="N")
    again.add_argument("--no-start", dest="start", action="store_false", help="only forget: what is in force was replaced, and quarantine ends with it")
    command("release", _release, "end the quarantine of an instance and start it")
    command("command", _command, "print the command that would start an instance now")
    return parser


def _name(text):
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no instance's name: small letters, digits, - and _")
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
