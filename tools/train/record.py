"""Records a trace of a real server on a mount: months of a database's life in minutes.

    python3 tools/train/record.py pg OUT.csv --seconds 150      (as root; needs a built weft, see --weft)
    python3 tools/train/record.py mariadb OUT.csv

What happens, at a scale of about one minute for a night and a few seconds for an hour (`Pace`, by seed): rows stream into partitions by
time range, new partitions come and old ones go; a hot set of accounts moves from table to table; a staging table is
loaded in bulk and emptied; at night there is a report, a purge and (PostgreSQL) a vacuum; a partition by key that has
grown too large, or old, is split in two. Everything random comes from --seed; how far it gets depends on the machine.

The server logs every statement, and Weft follows that log: the trace says which partitions were split and when, and how
often statements named each.
"""

import argparse
import collections
import gzip
import json
import os
import pwd
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TABLES = 8
ROWS = 12_000


class Pace:
    """How fast a life goes, and what it is like; drawn by seed. That of seed 1 is of the first recordings."""

    def __init__(self, seed):
        rng = random.Random(f"pace {seed}")
        first = seed == 1
        between = lambda low, high, usual: usual if first else low * (high / low) ** rng.random()
        # Seconds of a run.
        self.hour = between(4, 20, 8.0)
        self.night = 5 * self.hour
        self.kept_hours = 6 if first else rng.randrange(3, 10)
        # A partition of orders is divided with so many rows, or (some seeds) when so many hours have passed.
        self.split_rows = int(between(20_000, 120_000, 60_000))
        self.split_hours = None if first or rng.random() < 0.6 else between(1.5, 8, 4)
        # Of its keys so much goes to the child that is done.
        self.done = between(0.4, 0.8, 2 / 3)
        self.order_pause = between(0.3, 3, 0.75)

    def splits(self, rows, secs):
        return secs >= self.split_hours * self.hour if self.split_hours else rows > self.split_rows


def run(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd="/", **more).stdout


def as_user(user, *command):
    return ("runuser", "-u", user, "--", *map(str, command))


class Postgres:
    user = "postgres"

    def __init__(self, work, data):
        self.data, self.run = data, work / "run"
        self.weft_toml = (
            f'log = [{{ path = "{self.run}/log/*.csv", format = "pg-csv" }}]\n'
            f'log_catalogue = "host={self.run} user=postgres dbname=postgres"\n'
        )
        self.bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))[-1]
        make_dir(self.run, self.user)

    def make(self):
        run(*as_user(self.user, self.bin / "initdb", "-D", self.data, "-A", "trust", "-E", "UTF8", "--no-locale"))

    def start(self):
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": self.run,
            "shared_buffers": "24MB",
            "checkpoint_timeout": "30s",
            "max_wal_size": "256MB",
            "autovacuum_naptime": "5s",
            "log_statement": "all",
            "logging_collector": "on",
            "log_destination": "csvlog",
            "log_directory": self.run / "log",
        }
        options = " ".join(f"-c {key}='{value}'" for key, value in settings.items())
        log = self.run / "start.log"
        run(*as_user(self.user, self.bin / "pg_ctl", "-D", self.data, "-l", log, "-w", "-s", "-o", options, "start"))

    def stop(self):
        run(*as_user(self.user, self.bin / "pg_ctl", "-D", self.data, "-m", "fast", "-w", "-s", "stop"))

    def client(self):
        return as_user(self.user, self.bin / "psql", "-X", "-q", "-At", "-h", self.run, "-d", "postgres")

    echo = "\\echo {}\n"

    def schema(self):
        yield "CREATE TABLE events (ts int, key int, payload text) PARTITION BY RANGE (ts)"
        yield "CREATE TABLE orders (id int, payload text) PARTITION BY RANGE (id)"
        yield "CREATE TABLE orders_0 PARTITION OF orders FOR VALUES FROM (0) TO (1000000000)"
        yield "CREATE TABLE staging (id int, payload text)"
        yield "CREATE TABLE report (id int, total bigint)"
        for n in range(TABLES):
            yield f"CREATE TABLE accounts_{n} (id int PRIMARY KEY, balance int, filler text)"
            yield f"INSERT INTO accounts_{n} SELECT i, 0, repeat('x', 80) FROM generate_series(1, {ROWS}) i"

    def new_hour(self, n):
        yield f"CREATE TABLE events_{n} PARTITION OF events FOR VALUES FROM ({n}) TO ({n + 1})"
        yield f"CREATE INDEX ON events_{n} (key)"

    def drop_hour(self, n):
        yield f"DROP TABLE events_{n}"

    def rows(self, table, first, count, columns):
        return f"INSERT INTO {table} SELECT {columns} FROM generate_series({first}, {first + count - 1}) i"

    def split(self, low, high, middle, n):
        """The parent's rows are moved to two new children, as an operator would do it."""
        yield f"ALTER TABLE orders DETACH PARTITION orders_{n}"
        for child, a, b in ((n + 1, low, middle), (n + 2, middle, high)):
            yield f"CREATE TABLE orders_{child} (LIKE orders)"
            yield f"INSERT INTO orders_{child} SELECT * FROM orders_{n} WHERE id >= {a} AND id < {b}"
            yield f"ALTER TABLE orders ATTACH PARTITION orders_{child} FOR VALUES FROM ({a}) TO ({b})"
        yield f"DROP TABLE orders_{n}"

    def night(self, n):
        yield "TRUNCATE report"
        yield f"INSERT INTO report SELECT id, sum(balance) FROM accounts_{n % TABLES} GROUP BY id"
        yield f"VACUUM ANALYZE accounts_{n % TABLES}"
        yield f"DELETE FROM accounts_{(n + 3) % TABLES} WHERE id % 5 = 0"
        yield "CHECKPOINT"


class Mariadb:
    user = "mysql"

    def __init__(self, work, data):
        self.data, self.run = data, work / "run"
        self.weft_toml = f'log = [{{ path = "{self.run}/general.log", format = "mariadb-general" }}]\n'
        make_dir(self.run, self.user)
        self.settings = [
            "--skip-networking",
            "--innodb-buffer-pool-size=24M",
            "--innodb-log-file-size=24M",
            "--skip-log-bin",
        ]

    def make(self):
        run(
            *as_user(
                self.user,
                "mariadb-install-db",
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--datadir={self.data}",
                *self.settings,
            ),
            stderr=subprocess.DEVNULL,
        )

    def start(self):
        mariadbd = shutil.which("mariadbd", path=os.environ["PATH"] + ":/usr/sbin")
        self.child = subprocess.Popen(
            as_user(
                self.user,
                mariadbd,
                "--no-defaults",
                f"--datadir={self.data}",
                f"--socket={self.run}/s",
                f"--pid-file={self.run}/pid",
                f"--log-error={self.run}/log",
                "--general-log",
                f"--general-log-file={self.run}/general.log",
                *self.settings,
            ),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            ping = subprocess.run(self.admin("ping"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
            if ping.returncode == 0:
                run(*self.admin("create", "shop"))
                return
            time.sleep(0.1)
        sys.exit(f"record: mariadbd did not start: see {self.run}/log")

    def admin(self, *command):
        return ("mariadb-admin", "--no-defaults", f"--socket={self.run}/s", "-uroot", *command)

    def stop(self):
        run(*self.admin("shutdown"))
        self.child.wait(60)

    def client(self):
        # Tables of the sequence engine are only there while a database is chosen.
        return ("mariadb", "--no-defaults", f"--socket={self.run}/s", "-uroot", "-BN", "--unbuffered", "--force", "shop")

    echo = "SELECT '{}';\n"

    def schema(self):
        yield "CREATE TABLE shop.events (ts int, hash int, payload text, KEY (hash)) PARTITION BY RANGE (ts) (PARTITION p0 VALUES LESS THAN (0))"
        yield "CREATE TABLE shop.orders (id int, payload text) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (1000000000))"
        yield "CREATE TABLE shop.staging (id int, payload text)"
        yield "CREATE TABLE shop.report (id int, total bigint)"
        for n in range(TABLES):
            yield f"CREATE TABLE shop.accounts_{n} (id int PRIMARY KEY, balance int, filler text)"
            yield f"INSERT INTO shop.accounts_{n} SELECT seq, 0, repeat('x', 80) FROM seq_1_to_{ROWS}"

    def new_hour(self, n):
        yield f"ALTER TABLE shop.events ADD PARTITION (PARTITION p{n} VALUES LESS THAN ({n + 1}))"

    def drop_hour(self, n):
        yield f"ALTER TABLE shop.events DROP PARTITION p{n}"

    def rows(self, table, first, count, columns):
        columns = columns.replace("i", "seq").replace("md5", "md5")
        return f"INSERT INTO shop.{table} SELECT {columns} FROM seq_{first}_to_{first + count - 1}"

    def split(self, low, high, middle, n):
        yield (
            f"ALTER TABLE shop.orders REORGANIZE PARTITION p{n} INTO (PARTITION p{n + 1} VALUES LESS THAN ({middle}),"
            f" PARTITION p{n + 2} VALUES LESS THAN ({high}))"
        )

    def night(self, n):
        yield "TRUNCATE shop.report"
        yield f"INSERT INTO shop.report SELECT id, sum(balance) FROM shop.accounts_{n % TABLES} GROUP BY id"
        yield f"DELETE FROM shop.accounts_{(n + 3) % TABLES} WHERE id % 5 = 0"


class Session:
    """One client; statements one after the other, each waited for."""

    def __init__(self, server):
        self.echo = server.echo
        self.child = subprocess.Popen(
            server.client(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd="/"
        )

    def __call__(self, statements):
        for statement in [statements] if isinstance(statements, str) else statements:
            self.child.stdin.write(statement + ";\n" + self.echo.format("done"))
            self.child.stdin.flush()
            for line in self.child.stdout:
                if line.strip() == "done":
                    break

    def close(self):
        self.child.stdin.close()
        self.child.wait(60)


class Life:
    """Several sessions at once, until the end."""

    def __init__(self, server, seconds, seed):
        self.server, self.seed, self.pace = server, seed, Pace(seed)
        self.begun = time.monotonic()
        self.until = self.begun + seconds
        self.failed = queue.Queue()
        self.hour_made = threading.Event()

    def now(self):
        return time.monotonic() - self.begun

    def going(self):
        return time.monotonic() < self.until

    def prefix(self):
        return "shop." if isinstance(self.server, Mariadb) else ""

    def hours(self, sql, rng):
        n, kept = 0, []
        while self.going():
            n += 1
            sql(self.server.new_hour(n))
            kept.append(n)
            if len(kept) > self.pace.kept_hours:
                sql(self.server.drop_hour(kept.pop(0)))
            self.hour = n
            self.hour_made.set()
            self.sleep(self.pace.hour * rng.uniform(0.9, 1.1))

    def events(self, sql, rng):
        self.hour_made.wait(60)
        first = 0
        while self.going():
            # By day a stream that swells and fades; at night a trickle.
            phase = self.now() % self.pace.night / self.pace.night
            count = int(400 * max(0.05, 1 - abs(phase - 0.4) * 2.2))
            sql(self.server.rows("events", first, count, f"{self.hour}, i % 1000, repeat('e', 120)"))
            first += count
            self.sleep(rng.uniform(0.05, 0.3))

    def accounts(self, sql, rng):
        while self.going():
            hot = int(self.now() // (self.pace.hour * 1.7)) * 3
            table = (hot if rng.random() < 0.9 else rng.randrange(TABLES)) % TABLES
            first = rng.randrange(ROWS // 4)
            sql(
                f"UPDATE {self.prefix()}accounts_{table} SET balance = balance + 1 WHERE id BETWEEN {first} AND {first + 40}"
            )
            sql(f"SELECT count(balance) FROM {self.prefix()}accounts_{(table + 1) % TABLES} WHERE id < 500")
            self.sleep(rng.uniform(0.02, 0.1))

    def loads(self, sql, rng):
        while self.going():
            self.sleep(self.pace.hour * rng.uniform(1.8, 2.6))
            sql(self.server.rows("staging", 1, 30_000, "i, repeat('s', 100)"))
            self.sleep(self.pace.hour * 0.3)
            sql(f"TRUNCATE {self.prefix()}staging")

    def orders(self, sql, rng):
        low, first, high, newest, since = 0, 0, 1_000_000_000, 0, self.now()
        while self.going():
            count = rng.randrange(1_500, 4_000)
            sql(self.server.rows("orders", first, count, "i, repeat('o', 100)"))
            first += count
            if self.pace.splits(first - low, self.now() - since):
                middle = low + int((first - low) * self.pace.done)
                sql(self.server.split(low, high, middle, newest))
                low, newest, since = middle, newest + 2, self.now()
            self.sleep(self.pace.order_pause * rng.uniform(2 / 3, 4 / 3))

    def nights(self, sql, rng):
        n = 0
        while self.going():
            self.sleep(self.pace.night)
            n += 1
            sql(self.server.night(n))

    def sleep(self, seconds):
        time.sleep(max(0.0, min(seconds, self.until - time.monotonic())))

    def live(self):
        def one(number, work):
            sql = Session(self.server)
            try:
                work(sql, random.Random(self.seed * 100 + number))
                sql.close()
            except Exception as cause:  # told by the main thread
                self.failed.put(cause)

        works = (self.hours, self.events, self.accounts, self.loads, self.orders, self.nights)
        threads = [threading.Thread(target=one, args=pair) for pair in enumerate(works)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if not self.failed.empty():
            raise self.failed.get()


def make_dir(path, user):
    path.mkdir(mode=0o700)
    owner = pwd.getpwnam(user)
    os.chown(path, owner.pw_uid, owner.pw_gid)


def told(out, status):
    """What the log brought, in a line; a record without it would train on what nobody saw."""
    kinds = collections.Counter(line.split(",", 3)[2] for line in read(out) if not line.startswith(("#", "end_us")))
    log, trouble = status["logs"][0], status["log_catalogue_trouble"]
    if log["trouble"] or trouble or not kinds["query"]:
        sys.exit(f"record: the log of the server was not followed: {log} {trouble}")
    return (
        f"{kinds['split']} splits, {kinds['ddl']} other changes and {kinds['query']} counts of queries in the trace; of the"
        f" log {log['statements']} statements, {log['unknown']} changes of unknown tables"
    )


def read(path):
    with (gzip.open(path, "rt") if path.suffix == ".gz" else open(path)) as lines:
        yield from lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("server", choices=["pg", "mariadb"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weft", default=Path(__file__).resolve().parents[2] / "target/debug/weft")
    args = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("record: run it as root: it starts servers as other users")
    work = Path(tempfile.mkdtemp(prefix="weft-record.", dir="/var/tmp"))
    work.chmod(0o755)
    data, store = work / "data", work / "data.weft"
    kind = {"pg": Postgres, "mariadb": Mariadb}[args.server]
    make_dir(data, kind.user)
    store.mkdir(mode=0o700)
    server = kind(work, data)
    # Short ticks for a life in a hurry; a partition counts as split at each 4 MiB, as at each GiB of a grown one.
    settings = "forecast_tick_secs = 2\nforecast_step_secs = 60\nforecast_split_mib = 4\n"
    (store / "weft.toml").write_text(settings + server.weft_toml)
    run(args.weft, "mount", data)
    started = False
    try:
        server.make()
        server.start()
        started = True
        sql = Session(server)
        sql(server.schema())
        sql.close()
        Life(server, args.seconds, args.seed).live()
        followed = json.loads(run(args.weft, "status", data, "--json"))
    finally:
        if started:
            server.stop()
        run(args.weft, "unmount", data)
    print(run(args.weft, "--store", store, "trace", "export", "-o", args.out.absolute()), end="")
    print(told(args.out, followed))
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
