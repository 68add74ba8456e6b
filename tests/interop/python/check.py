"""A round trip with nats-py against $NATS_URL."""

import asyncio
import os

import nats
from nats.errors import NoRespondersError, TimeoutError
from nats.js.api import ConsumerConfig, DiscardPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError


async def core(nc):
    sub = await nc.subscribe("greet.*")

    async def answer(msg):
        await msg.respond(b"on my way")

    await nc.subscribe("help.me", queue="helpers", cb=answer)
    await nc.publish("greet.joe", b"hello", headers={"Key": "Value"})
    msg = await sub.next_msg(timeout=20)
    assert (msg.subject, msg.data, msg.headers["Key"]) == ("greet.joe", b"hello", "Value")
    reply = await nc.request("help.me", b"please", timeout=20)
    assert reply.data == b"on my way"
    try:
        await nc.request("nobody.listens", b"", timeout=20)
        raise AssertionError("a request without listeners was answered")
    except NoRespondersError:
        pass


async def stream(js):
    info = await js.add_stream(name="ORDERS", subjects=["orders.>"], max_msgs=1000)
    assert info.config.storage == StorageType.FILE and info.state.messages == 0
    for number in range(1, 11):
        ack = await js.publish("orders.new", f"order {number}".encode())
        assert (ack.stream, ack.seq) == ("ORDERS", number), ack
    first = await js.publish("orders.dup", b"x", headers={"Nats-Msg-Id": "one"})
    again = await js.publish("orders.dup", b"x", headers={"Nats-Msg-Id": "one"})
    assert first.seq == again.seq == 11 and again.duplicate
    try:
        await js.publish("orders.new", b"", headers={"Nats-Expected-Last-Sequence": "3"})
        raise AssertionError("a wrong expectation was accepted")
    except APIError as err:
        assert err.err_code == 10071, err
    msg = await js.get_msg("ORDERS", 2)
    assert (msg.subject, msg.data) == ("orders.new", b"order 2")
    last = await js.get_last_msg("ORDERS", "orders.new")
    assert last.seq == 10
    info = await js.stream_info("ORDERS", subjects_filter=">")
    assert info.state.messages == 11 and info.state.subjects == {"orders.new": 10, "orders.dup": 1}


async def consumer(js):
    await js.add_consumer(
        "ORDERS", ConsumerConfig(durable_name="worker", ack_policy="explicit", filter_subject="orders.new")
    )
    sub = await js.pull_subscribe_bind("worker", "ORDERS")
    msgs = await sub.fetch(4, timeout=20)
    assert [msg.data for msg in msgs] == [b"order 1", b"order 2", b"order 3", b"order 4"]
    assert msgs[3].metadata.num_pending == 6 and msgs[3].metadata.sequence.stream == 4
    for msg in msgs[:3]:
        await msg.ack_sync(timeout=20)
    await msgs[3].nak()
    # A nak has no confirmation, and the next pull must not overtake it.
    await asyncio.sleep(0.5)
    again = await sub.fetch(1, timeout=20)
    assert again[0].data == b"order 4" and again[0].metadata.num_delivered == 2
    await again[0].in_progress()
    await again[0].term()
    rest = await sub.fetch(6, timeout=20)
    for msg in rest:
        await msg.ack_sync(timeout=20)
    info = await js.consumer_info("ORDERS", "worker")
    assert info.num_pending == 0 and info.num_ack_pending == 0 and info.ack_floor.stream_seq == 10, info
    try:
        await sub.fetch(1, timeout=0.5)
        raise AssertionError("a message came from nowhere")
    except TimeoutError:
        pass
    names = [info.name for info in await js.consumers_info("ORDERS")]
    assert names == ["worker"]


async def manage(js):
    assert await js.delete_msg("ORDERS", 5)
    assert await js.purge_stream("ORDERS", subject="orders.dup")
    assert (await js.stream_info("ORDERS")).state.messages == 9
    info = await js.update_stream(name="ORDERS", subjects=["orders.>"], max_msgs=3)
    assert info.config.max_msgs == 3 and info.state.messages == 3
    await js.add_stream(StreamConfig(name="FULL", subjects=["full"], max_msgs=1, discard=DiscardPolicy.NEW, storage="memory"))
    await js.publish("full", b"x")
    try:
        await js.publish("full", b"x")
        raise AssertionError("a full stream accepted a message")
    except APIError as err:
        assert err.err_code == 10077, err
    assert await js.purge_stream("ORDERS")
    assert await js.delete_consumer("ORDERS", "worker")
    assert await js.delete_stream("ORDERS")
    assert await js.delete_stream("FULL")
    try:
        await js.stream_info("ORDERS")
        raise AssertionError("a deleted stream is still there")
    except NotFoundError:
        pass
    assert (await js.account_info()).streams == 0


async def main():
    nc = await nats.connect(os.environ["NATS_URL"])
    js = nc.jetstream(timeout=20)
    for part in (core(nc), stream(js), consumer(js), manage(js)):
        print("  ", part.__name__)
        await part
    await nc.close()


asyncio.run(main())
