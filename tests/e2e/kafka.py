"""A real Kafka of a test's own: one broker, or a quorum of three that can lose one."""

import subprocess

from headroom import ROOT


class Kafka:
    def __init__(self, home, brokers=1, secure=()):
        home.mkdir(parents=True, exist_ok=True)
        self.script = subprocess.Popen(
            [
                *(ROOT / "tests/components/kafka/start", home / "kafka", "--brokers", str(brokers), "--remove"),
                *(("--secure", *secure) if secure else ()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        answer = self.script.stdout.readline().split()
        assert answer[:1] == ["ready"], f"kafka did not start: {self.script.wait()}"
        self.addresses = answer[1].split(",")
        self.replicas = brokers

    def tell(self, what):
        self.script.stdin.write(what + "\n")
        self.script.stdin.flush()
        assert self.script.stdout.readline().strip() == "done", what

    def kill(self, number):
        """Ends broker `number` (from 1) by SIGKILL."""
        self.tell(f"kill {number}")

    def start(self, number):
        """Starts it again on its port and data; returns when it is ready."""
        self.tell(f"start {number}")

    def stop(self):
        self.script.stdin.close()
        self.script.wait()

    def settings(self, prefix="headroom", partitions=4):
        """Options that put a Headroom on this cluster."""
        values = {
            "log.backend": "kafka",
            "kafka.brokers": ",".join(self.addresses),
            "kafka.topic_prefix": prefix,
            "kafka.partitions": partitions,
            "kafka.replication_factor": self.replicas,
        }
        return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
