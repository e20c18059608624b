"""Programs that go wrong, as users write them. Each writes what it met into `report.json`, by case."""

from __future__ import annotations

MODULE = '''
"""A module of the user's own, beside the script."""

FACTOR = 3


class Overheated(Exception):
    """Its __init__ takes other arguments than it hands on: plain pickle cannot make it again."""

    def __init__(self, degrees, where):
        super().__init__(f"{where} has {degrees} °C")
        self.degrees = degrees


def tripled(x):
    return FACTOR * x
'''

TELL = '''
import json, time, traceback

told = {}


def tell(name, work):
    """Note how this ends."""
    began = time.monotonic()
    try:
        found = {"value": work()}
    except BaseException as error:
        found = {
            "type": type(error).__name__,
            "text": str(error),
            "shown": "".join(traceback.format_exception(error)),
            "skyward": isinstance(error, sky.SkywardError),
            "frames": [frame.filename for frame in traceback.extract_tb(error.__traceback__)],
        }
    told[name] = found | {"seconds": time.monotonic() - began}


def write():
    with open("report.json", "w") as file:
        json.dump(told, file)
'''

CALLS = (
    """
import os, subprocess, sys, threading
import skyward as sky
import their_module
"""
    + TELL
    + """
SETTINGS = {"lock": threading.Lock()}


@sky.function
def uses_a_lock():
    with SETTINGS["lock"]:
        return 1


@sky.function
def same(value):
    return value


@sky.function
def returns_a_generator():
    return {"rows": (row for row in range(3))}


@sky.function
def returns_much():
    return os.urandom(3_000_000)


@sky.function
def exits():
    os._exit(7)


@sky.function
def out_of_memory():
    os.kill(os.getpid(), 9)


@sky.function
def leaves(status):
    sys.exit(status)


@sky.function
def endless():
    def deeper(n):
        return deeper(n + 1)

    return deeper(0)


@sky.function
def raises_what_only_the_node_knows():
    import types

    module = sys.modules["only_there"] = types.ModuleType("only_there")
    exec("class Far(Exception): pass", vars(module))
    raise module.Far("made on the node")


@sky.function
def overheats():
    raise their_module.Overheated(99, "Kühlung ❄")


@sky.function
def says_very_much():
    raise ValueError("x" * 1_000_000)


@sky.function
def fails_deep_down():
    def even(n):
        odd(n - 1)

    def odd(n):
        if n < 0:
            raise ValueError("deep down")
        even(n - 1)

    even(600)


@sky.function
def speaks():
    print("Grüße 🎈")
    sys.stdout.buffer.write(b"\\xff bytes\\n")
    return "ß🎈"


@sky.function
def prints_a_huge_line():
    print("y" * 300_000 + "end")
    return 1


@sky.function
def sleeps(mark):
    child = subprocess.Popen(["sleep", "600"])
    with open(mark, "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    print("asleep", flush=True)
    child.wait()


@sky.function
def imports_what_is_not_there():
    import not_installed_here


with sky.Compute(provider=sky.Local()) as pool:
    tell("lock", lambda: uses_a_lock() >> pool)
    tell("argument", lambda: same({"a": [1, threading.Lock()]}) >> pool)
    tell("generator", lambda: returns_a_generator() >> pool)
    tell("returns much", lambda: returns_much() >> pool)
    tell("exits", lambda: exits() >> pool)
    tell("killed", lambda: out_of_memory() >> pool)
    tell("leaves", lambda: leaves("that is all") >> pool)
    tell("leaves without a word", lambda: leaves(None) >> pool)
    tell("endless", lambda: endless() >> pool)
    tell("far", lambda: raises_what_only_the_node_knows() >> pool)
    tell("overheats", lambda: overheats() >> pool)
    try:
        overheats() >> pool
    except their_module.Overheated as error:
        told["degrees"] = error.degrees
    tell("much", lambda: says_very_much() >> pool)
    tell("deep", lambda: fails_deep_down() >> pool)
    tell("speaks", lambda: speaks() >> pool)
    tell("huge line", lambda: prints_a_huge_line() >> pool)
    tell("missing", lambda: imports_what_is_not_there() >> pool)
    tell("module", lambda: same(their_module.tripled)  >> pool)
    tell("travels", lambda: sky.function(lambda x: their_module.tripled(x))(4) >> pool)
    tell("large", lambda: same(os.urandom(3_000_000)) >> pool)
    os.environ["SKYWARD_LARGEST_PAYLOAD"] = "100000"
    tell("large here", lambda: same(os.urandom(200_000)) >> pool)
    del os.environ["SKYWARD_LARGEST_PAYLOAD"]
    tell("brackets", lambda: same(1) & same(2) >> pool)
    tell("timeout", lambda: sleeps(os.path.abspath("timeout")).with_timeout(1) >> pool)

    def cancelled():
        future = sleeps(os.path.abspath("cancelled")) > pool
        threading.Timer(1.0, future.cancel).start()
        return future.result()

    tell("cancelled", cancelled)
    tell("afterwards", lambda: same("well") >> pool)
    told["module"].pop("value", None)
write()
"""
)

INTERFERED = (
    """
import sys
import skyward as sky
"""
    + TELL
    + """
def sleeps():
    import time

    print("asleep", flush=True)
    time.sleep(600)


def named(name):
    sleeps.__name__ = name
    return sky.function(sleeps)() > pool


options = sky.Options(worker=sky.Worker(concurrency=3))
with sky.Compute(provider=sky.Local(), name=sys.argv[1], options=options) as pool:
    futures = {name: named(name) for name in ("stopped", "removed", "orphan")}
    for name, future in futures.items():
        tell(name, future.result)
        print("ended:", name, flush=True)
write()
"""
)

LOST = (
    """
import os, pathlib, sys
import skyward as sky
"""
    + TELL
    + '''
@sky.function
def patient(mark):
    """The first try never ends by itself; the second does."""
    import os, pathlib, time

    tries = pathlib.Path(mark)
    number = tries.read_text().count("|") + 1 if tries.exists() else 1
    with tries.open("a") as file:
        file.write(f"{os.getpid()}|")
    print("try", number, flush=True)
    if number == 1:
        time.sleep(600)
    return number


mark, times = os.path.abspath(sys.argv[1]), int(sys.argv[2])
with sky.Compute(provider=sky.Local()) as pool:
    tell("call", lambda: patient(mark).with_retry(on_interruption=times) >> pool)
write()
'''
)

WAITS = """
import pathlib, sys
import skyward as sky


@sky.function
def waits_for(path):
    import os, time

    print("waiting", flush=True)
    os.mkfifo(path)
    with open(path) as file:
        return file.read()


with sky.Compute(provider=sky.Local()) as pool:
    print("result:", waits_for(sys.argv[1]) >> pool)
"""
