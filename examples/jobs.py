"""A job queue in one file: workers that crash, jobs that fail, the leader stopped, and every job done once.

Run it: ``python examples/jobs.py``. ``r2p2 serve --app examples.jobs:Jobs --members ...`` runs it as processes, and
``r2p2 call ADDRESS --policy replicated "submit 3 resize cat.png"`` submits a job of at most three attempts.

Requests are words, replies too:

    submit ATTEMPTS_MAX TEXT     job NUMBER
    take WORKER VISIBLE_MS       job NUMBER ATTEMPT TEXT | empty
    done NUMBER ATTEMPT          ok | late
    fail NUMBER ATTEMPT          again | dead | late
    stats (a read, too)          JSON: how many wait, are taken, done, dead

Who takes a job has it alone for VISIBLE_MS of the *log's* time. If it is neither done nor failed by then (its worker
has crashed, or is slow), the attempt has failed. A failed job is tried again, after those that wait, until it has had
ATTEMPTS_MAX attempts; then it is a dead letter. ATTEMPT tells a late worker from the one who has the job now.

Workers call in a session: a call that is sent again, because the leader is gone, takes no second job, and finishes
none twice. What a worker *does* with a job may still happen twice: it did it and crashed before it could say so.
"""

import asyncio
import heapq
import json
import sys
from collections import deque
from dataclasses import asdict, dataclass

import r2p2

JOBS_MAX = 100_000
DEAD_KEPT_MAX = 1_000
ATTEMPTS_MAX = 100
VISIBLE_MS_MAX = 3_600_000


@dataclass
class Job:
    """One job. ``attempt``: of who has it, or had it last; ``until_ms``: of the log's time, 0 while it waits."""

    number: int
    attempts_max: int
    text: str
    attempt: int = 0
    until_ms: int = 0


class Jobs(r2p2.StateMachine):
    """The queue. Only ``apply`` changes it, and only with what the log says."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.last_number = 0
        self.done_count = 0
        self.dead_count = 0
        self.jobs: dict[int, Job] = {}
        self.waiting: deque[int] = deque()
        self.dead: deque[Job] = deque(maxlen=DEAD_KEPT_MAX)
        # (until_ms, number, attempt) of every taking; those that have ended otherwise are skipped when they come up.
        self._ends: list[tuple[int, int, int]] = []

    def apply(self, requests: r2p2.Requests) -> list[bytes]:
        """Ends attempts by the log's time, then answers."""
        self.now_ms = max(self.now_ms, requests.time_ms)
        while self._ends and self._ends[0][0] <= self.now_ms:
            _, number, attempt = heapq.heappop(self._ends)
            job = self._taken(number, attempt)
            if job is not None:
                self._failed(job)
        return [self._answer(request).encode() for request in requests]

    def query(self, request: bytes) -> bytes:
        """``stats``, as a read: it does not enter the log."""
        return self._stats().encode() if request == b"stats" else b"error: reads are: stats"

    def next_deadline_ms(self) -> int | None:
        """When the next attempt ends, so that it does though nobody asks."""
        return self._ends[0][0] if self._ends else None

    def _answer(self, request: bytes) -> str:
        try:
            verb, _, rest = request.decode().partition(" ")
            if verb == "submit":
                attempts, _, text = rest.partition(" ")
                return self._submit(_within(attempts, ATTEMPTS_MAX), text)
            match (verb, *rest.split()):
                case ("take", _, visible_ms):
                    return self._take(_within(visible_ms, VISIBLE_MS_MAX))
                case ("done", number, attempt):
                    job = self._taken(int(number), int(attempt))
                    if job is None:
                        return "late"
                    del self.jobs[job.number]
                    self.done_count += 1
                    return "ok"
                case ("fail", number, attempt):
                    job = self._taken(int(number), int(attempt))
                    return "late" if job is None else self._failed(job)
                case ("stats",):
                    return self._stats()
                case _:
                    return "error: submit ATTEMPTS_MAX TEXT, take WORKER VISIBLE_MS, done|fail NUMBER ATTEMPT"
        except ValueError as error:  # the same on every member: it comes from the request alone
            return f"error: {error}"

    def _submit(self, attempts_max: int, text: str) -> str:
        if len(self.jobs) == JOBS_MAX:
            return f"error: {JOBS_MAX} jobs are not done"
        self.last_number += 1
        self.jobs[self.last_number] = Job(self.last_number, attempts_max, text)
        self.waiting.append(self.last_number)
        return f"job {self.last_number}"

    def _take(self, visible_ms: int) -> str:
        if not self.waiting:
            return "empty"
        job = self.jobs[self.waiting.popleft()]
        job.attempt += 1
        job.until_ms = self.now_ms + visible_ms
        heapq.heappush(self._ends, (job.until_ms, job.number, job.attempt))
        if len(self._ends) > 2 * len(self.jobs) + 64:
            self._index_ends()  # most are of attempts that have ended otherwise
        return f"job {job.number} {job.attempt} {job.text}"

    def _taken(self, number: int, attempt: int) -> Job | None:
        """The job, if this attempt has it."""
        job = self.jobs.get(number)
        return job if job is not None and job.until_ms and job.attempt == attempt else None

    def _failed(self, job: Job) -> str:
        job.until_ms = 0
        if job.attempt < job.attempts_max:
            self.waiting.append(job.number)
            return "again"
        self.dead.append(self.jobs.pop(job.number))
        self.dead_count += 1
        return "dead"

    def _index_ends(self) -> None:
        self._ends = [(job.until_ms, job.number, job.attempt) for job in self.jobs.values() if job.until_ms]
        heapq.heapify(self._ends)

    def _stats(self) -> str:
        counts = {"waiting": len(self.waiting), "taken": len(self.jobs) - len(self.waiting)}
        dead = [job.text for job in self.dead]
        return json.dumps(counts | {"done": self.done_count, "dead": self.dead_count, "dead_letters": dead[-10:]})

    def snapshot(self) -> bytes:
        """The whole state: a member that comes back gives the same jobs to the same workers."""
        state = {
            "counts": [self.now_ms, self.last_number, self.done_count, self.dead_count],
            "jobs": [asdict(job) for job in self.jobs.values()],
            "waiting": list(self.waiting),
            "dead": [asdict(job) for job in self.dead],
        }
        return json.dumps(state).encode()

    def restore(self, data: bytes) -> None:
        """The state as it was then."""
        state = json.loads(data)
        self.now_ms, self.last_number, self.done_count, self.dead_count = state["counts"]
        self.jobs = {fields["number"]: Job(**fields) for fields in state["jobs"]}
        self.waiting = deque(state["waiting"])
        self.dead = deque((Job(**fields) for fields in state["dead"]), maxlen=DEAD_KEPT_MAX)
        self._index_ends()

    def state_digest(self) -> str:
        """For ``r2p2 status --state``: equal on members whose states are equal."""
        return self.snapshot().decode()


def _within(text: str, most: int) -> int:
    number = int(text)
    if not 1 <= number <= most:
        raise ValueError(f"{number} is outside 1..{most}")
    return number


async def work(cluster: r2p2.LocalCluster, name: str, log: list[str], *, crashes: bool = False) -> None:
    """Takes jobs until all are done or dead; with ``crashes`` it takes one and is never heard of again."""
    async with cluster.client(timeout_s=10, session=True) as client:
        while True:
            found = (await client.call(f"take {name} 1000".encode())).decode()
            if found == "empty":
                stats = json.loads(await client.call(b"stats", policy=r2p2.REPLICATED))
                if not stats["waiting"] and not stats["taken"]:
                    return
                await asyncio.sleep(0.05)
                continue
            _, number, attempt, text = found.split(" ", 3)
            if crashes:
                print(f"{name} took job {number} and crashes")
                return
            await asyncio.sleep(0.01)  # the work itself
            verb = "fail" if text == "impossible" else "done"
            answer = (await client.call(f"{verb} {number} {attempt}".encode())).decode()
            if verb == "fail":
                print(f"{name} could not do job {number}, attempt {attempt}: {answer}")
            elif answer == "ok":
                log.append(text)


async def main() -> None:
    """Twenty jobs and one that nobody can do, three workers of which one crashes, and the leader stopped half way."""
    async with r2p2.LocalCluster(Jobs, size=3) as cluster, cluster.client(timeout_s=10, session=True) as client:
        for text in [f"picture {i}" for i in range(20)] + ["impossible"]:
            await client.call(f"submit 3 {text}".encode())
        print("21 jobs submitted")
        log: list[str] = []
        await work(cluster, "worker0", log, crashes=True)
        workers = [asyncio.create_task(work(cluster, f"worker{i}", log)) for i in (1, 2)]
        while len(log) < 5:
            await asyncio.sleep(0.01)
        leader = cluster.leader
        assert leader is not None
        print("member", leader, "leads; it is stopped now")
        cluster.stop_member(leader)
        await asyncio.gather(*workers)
        print(f"{len(log)} jobs were done, {len(set(log))} different ones")
        stats = json.loads(await client.call(b"stats", policy=r2p2.REPLICATED))
        print(f"the queue says: {stats['done']} done, {stats['dead']} dead: {', '.join(stats['dead_letters'])}")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
