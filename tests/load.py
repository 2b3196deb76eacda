"""Many users at once: `make load` prints what a server on this machine sustains, and docs/benchmarks.md keeps the latest.

usage: python tests/load.py [--users 100] [--minutes 10] [--tokens 20] [--embedded]

A server with an account and a private document for each user, and a model server that speaks TOKENS tokens a second to each caller. Users ask by server-sent
events and think for one to three seconds in between. With --embedded the model of this process answers instead, as slowly as it does.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import linear_regression

import httpx

from index.people import open_people
from rag.accounts import Accounts, Costs

HERE = Path(__file__).parent
FIRST = ("Tobias", "Amara", "Jonas", "Leila", "Marek", "Sunniva", "Idris", "Paola", "Kenji", "Wren")
LAST = ("Ranke", "Oduya", "Lindqvist", "Haddad", "Novak", "Bergstrom", "Cisse", "Marchetti", "Tanabe", "Holloway")
SAMPLE_SECONDS = 5.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def people(count: int, data: Path) -> list[dict[str, str]]:
    """Users with keys, and the code that only each one's own document tells."""
    made = []
    with closing(open_people(data)) as database:
        accounts = Accounts(database, Costs(1, 8, 1))
        for number in range(count):
            user = f"user{number:03}"
            accounts.add(user, secrets.token_urlsafe(16), "admin" if not number else "member")
            name = f"{FIRST[number % 10]} {LAST[number // 10 % 10]}" + (f" {number // 100}" if number >= 100 else "")
            code = f"{random.randrange(10**6):06}-{secrets.token_hex(3).upper()}"
            made.append({"key": accounts.create_key(user), "name": name, "code": code, "address": f"198.51.{number // 250}.{number % 250 + 1}"})
    return made


def note_of(person: dict[str, str]) -> str:
    """A private document."""
    return (
        f"# Notes of {person['name']}\n\nThe locker code of {person['name']} is {person['code']}. The locker stands on the second floor, beside the stairs.\n\n"
        f"{person['name']} keeps a spare key with the porter, who is there from seven to four. On Fridays the building closes at two.\n\n"
        "The bicycle has a lock of its own. Its light was mended in March, and the tyres are to be looked at before winter.\n"
    )


def upload(address: str, person: dict[str, str]) -> None:
    headers = {"Authorization": f"Bearer {person['key']}", "X-Forwarded-Proto": "https", "X-Forwarded-For": person["address"]}
    files = {"file": ("notes.md", note_of(person).encode())}
    told = httpx.post(f"{address}/api/documents", files=files, headers=headers, timeout=300, trust_env=False).raise_for_status().json()
    assert told["files"][0]["status"] == "indexed", told


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class Watched:
    """A process whose memory is looked at every few seconds."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.samples: list[tuple[float, float]] = []
        self._ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(SAMPLE_SECONDS):
            lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii").splitlines()
            kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
            self.samples.append(((time.monotonic() - began) / 60, kilobytes / 1000))

    def end(self) -> None:
        """Looks no more."""
        self._ended.set()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            if httpx.get(f"{address}/readyz", timeout=5, trust_env=False, headers={"X-Forwarded-Proto": "https"}).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError("the server did not get ready")


def main() -> None:
    """Runs the load test and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--tokens", type=float, default=20)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--locust", default=str(Path(sys.executable).with_name("locust")), help="locust's command")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="citewell-load-") as scratch:
        run(asked, Path(scratch))


def run(asked: argparse.Namespace, place: Path) -> None:
    data, seen, listed = place / "data", place / "seen.jsonl", place / "people.json"
    data.mkdir()
    seen.touch()
    everybody = people(asked.users, data)
    listed.write_text(json.dumps(everybody), encoding="utf-8")
    port, model_port = free_port(), free_port()
    address = f"http://127.0.0.1:{port}"
    model = subprocess.Popen([sys.executable, str(HERE / "load_model.py"), str(model_port), str(asked.tokens)])
    settings = {
        "CITEWELL_DATA_DIR": str(data),
        "CITEWELL_PORT": str(port),
        "CITEWELL_TRUSTED_PROXIES": "127.0.0.1",
        "CITEWELL_QUEUE_LENGTH": str(asked.users),
        **({} if asked.embedded else {"CITEWELL_MODEL": f"http://127.0.0.1:{model_port}/v1", "CITEWELL_MODEL_NAME": "fake"}),
    }
    with (place / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "rag.cli", "serve"], env={**os.environ, **settings}, stdout=log, stderr=log)
        try:
            wait_for(address, server)
            for person in everybody:
                upload(address, person)
            before = processor_seconds(server.pid)
            watched = Watched(server)
            command = [
                asked.locust,
                "-f",
                str(HERE / "load_users.py"),
                "--headless",
                "--only-summary",
                "--host",
                address,
                "--csv",
                str(place / "load"),
            ]
            command += ["-u", str(asked.users), "-r", "10", "-t", f"{round(asked.minutes * 60)}s", "--stop-timeout", "60"]
            children = os.times().children_user + os.times().children_system
            subprocess.run(
                command, env={**os.environ, "LOAD_PEOPLE": str(listed), "LOAD_SEEN": str(seen)}, check=False, stdout=subprocess.DEVNULL, stderr=log
            )
            watched.end()
            spent = {
                "the server": processor_seconds(server.pid) - before,
                "the users": os.times().children_user + os.times().children_system - children,
                "the model": processor_seconds(model.pid),
            }
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)
            model.terminate()
    tell(asked, place, watched, spent)


def tell(asked: argparse.Namespace, place: Path, watched: Watched, spent: dict[str, float]) -> None:
    """Prints the table."""
    with (place / "load_stats.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] != "Aggregated"]
    print(
        f"{asked.users} users, {asked.minutes:g} minutes, {'the embedded model' if asked.embedded else f'a model of {asked.tokens:g} tokens a second'}\n"
    )
    print("| | count | a second | median ms | p95 ms | p99 ms | failed |\n|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        values = (row["Request Count"], f"{float(row['Requests/s']):.2f}", row["50%"], row["95%"], row["99%"], row["Failure Count"])
        print(f"| {row['Name']} | {' | '.join(values)} |")
    answers = next((int(row["Request Count"]) for row in rows if row["Name"] == "answer"), 0)
    used = ", ".join(f"{who} {seconds:.0f} s" for who, seconds in spent.items())
    print(f"\nprocessor time: {used}; {1000 * spent['the server'] / max(1, answers):.0f} ms of the server's an answer over HTTP")
    wrong = Counter(str(json.loads(line)[0]) for line in (place / "seen.jsonl").read_text(encoding="utf-8").splitlines())
    statuses = Counter(
        json.loads(line)[1] for line in (place / "seen.jsonl").read_text(encoding="utf-8").splitlines() if json.loads(line)[0] == "status"
    )
    print(f"5xx: {sum(count for status, count in statuses.items() if status.startswith('5'))}; other statuses: {dict(statuses)}")
    print(
        f"cross-talk: {wrong['cross-talk']}; own code missing in an answer: {wrong['missed']}; no answer: {wrong['no answer']}; error events: {wrong['error']}"
    )
    # Caches and pools fill in the first half: what goes on growing afterwards is the slope.
    grown = watched.samples[len(watched.samples) // 2 :]
    slope = linear_regression([minute for minute, _ in grown], [size for _, size in grown]).slope
    minutes = {int(minute): size for minute, size in watched.samples}
    print(
        f"memory at the end of each minute, MB: {', '.join(f'{size:.0f}' for size in minutes.values())}; slope of the second half {slope:+.2f} MB a minute"
    )
    log = (place / "server.log").read_text(encoding="utf-8", errors="replace")
    print(f"server's log: {log.count('ERROR')} errors, {log.count('WARNING')} warnings")
    lines = log.splitlines()
    told = [number for number, line in enumerate(lines) if "ERROR" in line or "WARNING" in line][:5]
    for number in told:  # with the stack behind it, whose last lines say most
        behind = list(itertools.takewhile(lambda line: not re.match("ERROR|WARNING", line), lines[number + 1 :]))
        for line in [lines[number], *behind[-12:]]:
            print(f"    {line[:200]}")
    for line in (place / "seen.jsonl").read_text(encoding="utf-8").splitlines()[:5]:
        print(f"    {line[:400]}")


if __name__ == "__main__":
    main()
