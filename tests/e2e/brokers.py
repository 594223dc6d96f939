"""A real Kafka broker, topics in it, and independent clients to write and read them."""

import itertools
import subprocess

from headroom import ROOT, wait_until

NAMES = itertools.count()


class Broker:
    """One broker of its own directory, ended with the tests."""

    def __init__(self, home):
        self.home = home
        self.process = subprocess.Popen(
            [ROOT / "tests/components/kafka/start", home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = self.process.stdout.readline().split()
        assert said and said[0] == "ready", f"the broker is not ready: {said}"
        self.address = said[1]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)

    def tell(self, what):
        """`kill 1` or `start 1`."""
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "done"

    def admin(self):
        from confluent_kafka.admin import AdminClient

        return AdminClient({"bootstrap.servers": self.address})

    def topic(self, partitions=1, name=None):
        """A topic of a name that no other test has."""
        from confluent_kafka.admin import NewTopic

        name = name or f"topic-{next(NAMES)}"
        # The client must outlive its answer.
        admin = self.admin()
        for made in admin.create_topics([NewTopic(name, partitions, 1)]).values():
            made.result(timeout=30)
        return name

    def producer(self):
        from confluent_kafka import Producer

        return Producer({"bootstrap.servers": self.address, "enable.idempotence": True, "linger.ms": 5})

    def produce(self, topic, values, **more):
        """Writes values and returns when the broker has them all."""
        producer = self.producer()
        failures = []
        for value in values:
            while True:
                try:
                    producer.produce(topic, value, on_delivery=lambda error, _: error and failures.append(error), **more)
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0 and not failures, failures

    def read(self, topic, count):
        """The first `count` records of a topic."""
        from confluent_kafka import Consumer

        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": f"reader-{next(NAMES)}", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([topic])
        records = []

        def enough():
            record = consumer.poll(0.2)
            if record is not None and record.error() is None:
                records.append(record)
            return len(records) >= count

        try:
            wait_until(enough, f"{count} records of {topic}", 30)
        finally:
            consumer.close()
        return records

    def committed(self, group, topic, partitions):
        """The offsets that a group has committed."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        try:
            found = consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=15)
        finally:
            consumer.close()
        return [each.offset for each in found]
