// A round trip with the Node clients against $NATS_URL.
const assert = require("node:assert/strict");
const { connect, nanos, headers } = require("@nats-io/transport-node");
const { jetstream, jetstreamManager, AckPolicy, DiscardPolicy, StorageType } = require("@nats-io/jetstream");

async function core(nc) {
  const sub = nc.subscribe("greet.*", { max: 1 });
  const received = (async () => {
    for await (const msg of sub) return msg;
  })();
  const h = headers();
  h.set("Key", "Value");
  nc.publish("greet.joe", "hello", { headers: h });
  const msg = await received;
  assert.deepEqual([msg.subject, msg.string(), msg.headers.get("Key")], ["greet.joe", "hello", "Value"]);
  nc.subscribe("help.me", { queue: "helpers", callback: (_err, request) => request.respond("on my way") });
  const reply = await nc.request("help.me", "please", { timeout: 20000 });
  assert.equal(reply.string(), "on my way");
  await assert.rejects(nc.request("nobody.listens", "", { timeout: 20000 }), /no responders/i);
}

async function stream(nc, js, jsm) {
  const info = await jsm.streams.add({ name: "ORDERS", subjects: ["orders.>"], max_msgs: 1000 });
  assert.equal(info.config.storage, StorageType.File);
  for (let number = 1; number <= 10; number++) {
    const ack = await js.publish("orders.new", `order ${number}`);
    assert.deepEqual([ack.stream, ack.seq, ack.duplicate], ["ORDERS", number, false]);
  }
  const first = await js.publish("orders.dup", "x", { msgID: "one" });
  const again = await js.publish("orders.dup", "x", { msgID: "one" });
  assert.deepEqual([first.seq, again.seq, again.duplicate], [11, 11, true]);
  await assert.rejects(js.publish("orders.new", "", { expect: { lastSequence: 3 } }), /wrong last sequence: 11/);
  const msg = await jsm.streams.getMessage("ORDERS", { seq: 2 });
  assert.deepEqual([msg.subject, msg.string()], ["orders.new", "order 2"]);
  const last = await jsm.streams.getMessage("ORDERS", { last_by_subj: "orders.new" });
  assert.equal(last.seq, 10);
  const names = [];
  for await (const name of jsm.streams.names()) names.push(name);
  assert.deepEqual(names, ["ORDERS"]);
}

async function consumer(nc, js, jsm) {
  await jsm.consumers.add("ORDERS", {
    durable_name: "worker", ack_policy: AckPolicy.Explicit, filter_subject: "orders.new", ack_wait: nanos(30000),
  });
  const worker = await js.consumers.get("ORDERS", "worker");
  const numbers = [];
  for await (const msg of await worker.fetch({ max_messages: 4, expires: 20000 })) {
    numbers.push(msg.seq);
    if (msg.seq < 4) assert.equal(await msg.ackAck(), true);
    else msg.nak();
  }
  assert.deepEqual(numbers, [1, 2, 3, 4]);
  // A nak has no confirmation, and the next pull must not overtake it.
  await new Promise((done) => setTimeout(done, 500));
  const again = await worker.next({ expires: 20000 });
  assert.deepEqual([again.seq, again.info.deliveryCount], [4, 2]);
  again.working();
  again.term();
  const rest = [];
  const messages = await worker.consume({ max_messages: 3 });
  for await (const msg of messages) {
    rest.push(msg.string());
    await msg.ackAck();
    if (rest.length === 6) break;
  }
  assert.deepEqual(rest, [5, 6, 7, 8, 9, 10].map((number) => `order ${number}`));
  const info = await worker.info();
  assert.deepEqual([info.num_pending, info.num_ack_pending, info.ack_floor.stream_seq], [0, 0, 10]);
  assert.equal(await worker.next({ expires: 1000 }), null);

  const ordered = await js.consumers.get("ORDERS", { filter_subjects: "orders.new" });
  const seqs = [];
  for await (const msg of await ordered.fetch({ max_messages: 10, expires: 20000 })) seqs.push(msg.seq);
  assert.deepEqual(seqs, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
}

async function manage(nc, js, jsm) {
  assert.equal(await jsm.streams.deleteMessage("ORDERS", 5), true);
  assert.equal((await jsm.streams.purge("ORDERS", { filter: "orders.dup" })).purged, 1);
  const info = await jsm.streams.update("ORDERS", { max_msgs: 3 });
  assert.deepEqual([info.config.max_msgs, info.state.messages], [3, 3]);
  await jsm.streams.add({
    name: "FULL", subjects: ["full"], max_msgs: 1, discard: DiscardPolicy.New, storage: StorageType.Memory,
  });
  await js.publish("full", "x");
  await assert.rejects(js.publish("full", "x"), /maximum messages exceeded/);
  assert.equal(await jsm.consumers.delete("ORDERS", "worker"), true);
  assert.equal((await jsm.streams.purge("ORDERS")).purged, 3);
  assert.equal(await jsm.streams.delete("ORDERS"), true);
  assert.equal(await jsm.streams.delete("FULL"), true);
  await assert.rejects(jsm.streams.info("ORDERS"), /stream not found/);
  assert.equal((await jsm.getAccountInfo()).streams, 0);
}

async function main() {
  const nc = await connect({ servers: process.env.NATS_URL });
  const jsm = await jetstreamManager(nc, { timeout: 20000 });
  const js = jetstream(nc, { timeout: 20000 });
  for (const part of [core, stream, consumer, manage]) {
    console.log("  ", part.name);
    await part(nc, js, jsm);
  }
  await nc.drain();
}

main().catch((err) => {
  console.error(err);
  process.exit(1);
});
