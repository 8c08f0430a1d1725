// Each kind of call that @supabase/postgrest-js offers, against the facade at argv[2] with the token argv[3]; prints a line of
// JSON for each: name, status, data, count, error. NODE_PATH says where the client is.
const { PostgrestClient } = require("@supabase/postgrest-js");
const [url, token] = process.argv.slice(2);
const client = new PostgrestClient(url, { headers: { Authorization: `Bearer ${token}` }, schema: "public" });
const m = () => client.from("messages");
const calls = {
	insert: () => m().insert({ payload: { n: 1, name: "one", tags: ["a"] }, message_key: "k1" }),
	insertMany: () => m().insert([{ payload: { n: 2, name: "two" }, message_key: "k2" }, { payload: { n: 3, name: "three" }, message_key: "k3" }], { count: "exact" }).select("id, message_key"),
	insertMissing: () => m().insert([{ payload: 4, message_key: "k4" }, { payload: 5, event_type: "e" }], { defaultToNull: false }).select("channel,message_key,event_type"),
	select: () => m().select("id, message_key, payload->>name, st:status").order("id"),
	count: () => m().select("*", { count: "exact", head: true }),
	range: () => m().select("id", { count: "exact" }).order("id").range(1, 2),
	limit: () => m().select("id").order("id", { ascending: false, nullsFirst: false }).limit(2),
	single: () => m().select("message_key").eq("id", 1).single(),
	singleNone: () => m().select("id").eq("id", 99).single(),
	maybe: () => m().select("id").eq("id", 99).maybeSingle(),
	maybeOne: () => m().select("id").eq("id", 1).maybeSingle(),
	csv: () => m().select("id,message_key").eq("id", 2).csv(),
	eq: () => m().select("id").eq("message_key", "k1"),
	neq: () => m().select("id").neq("message_key", "k1").order("id"),
	gt: () => m().select("id").gt("id", 4),
	gte: () => m().select("id").gte("id", 5),
	lt: () => m().select("id").lt("id", 2),
	lte: () => m().select("id").lte("id", 1),
	like: () => m().select("id").like("message_key", "k%").order("id"),
	likeAny: () => m().select("id").likeAnyOf("message_key", ["k1", "k2"]).order("id"),
	ilike: () => m().select("id").ilike("message_key", "K1"),
	is: () => m().select("id").is("message_key", null),
	in: () => m().select("id").in("message_key", ["k1", "k,2", "k\"3", "k3"]).order("id"),
	contains: () => m().select("id").contains("payload", { n: 2 }),
	containedBy: () => m().select("id").containedBy("payload", { n: 2, name: "two", more: 1 }),
	jsonPath: () => m().select("id").eq("payload->tags->>0", "a"),
	match: () => m().select("id").match({ message_key: "k1", id: 1 }),
	not: () => m().select("id").not("message_key", "is", null).order("id"),
	or: () => m().select("id").or("message_key.eq.k1,and(id.gt.2,id.lt.4)").order("id"),
	filter: () => m().select("id").filter("id", "in", "(1,2)").order("id"),
	textSearch: () => m().select("id").textSearch("message_key", "k1", { config: "english" }),
	stripNulls: () => m().select("id,event_type").eq("id", 1).stripNulls(),
	update: () => m().update({ message_key: "u1" }).eq("id", 1),
	updateShown: () => m().update({ message_key: "u2" }, { count: "exact" }).eq("id", 1).select("message_key"),
	updateAll: () => m().update({ message_key: "all" }),
	maxAffected: () => m().update({ message_key: "x" }).gt("id", 0).maxAffected(1),
	upsert: () => client.from("msg_channels").upsert({ channel: "up", topic: "t1" }).select("topic"),
	upsertAgain: () => client.from("msg_channels").upsert({ channel: "up", topic: "t2" }, { onConflict: "channel" }).select("topic"),
	upsertIgnored: () => client.from("msg_channels").upsert({ channel: "up", topic: "t3" }, { ignoreDuplicates: true }).select("topic"),
	rollback: () => m().delete().eq("id", 1).rollback().select("id"),
	delete: () => m().delete({ count: "exact" }).eq("id", 5),
	deleteShown: () => m().delete().eq("id", 4).select("id"),
	rpc: () => client.rpc("msg_running", { channel: "up" }),
	rpcGet: () => client.rpc("msg_list", { status: "idle", limit: 2 }, { get: true, count: "exact" }).select("id").order("id"),
	rpcHead: () => client.rpc("msg_running", {}, { head: true }),
	rpcSelect: () => client.rpc("msg_list", {}).select("id").eq("id", 2).single(),
	rpcCreate: () => client.rpc("msg_create", { payload: { a: 1 }, channel: "default" }),
	rpcVoid: () => client.rpc("msg_channel_drop", { channel: "up" }),
	schema: () => client.schema("public").from("messages").select("id").eq("id", 2),
	schemaWrong: () => client.schema("private").from("messages").select("id"),
	tableWrong: () => client.from("nope").select("*"),
	columnWrong: () => m().select("nope"),
	functionWrong: () => client.rpc("msg_nope"),
	embedding: () => m().select("id, msg_channels(*)"),
	explain: () => m().select("id").explain(),
};
(async () => {
	for (const [name, call] of Object.entries(calls)) {
		const r = await call();
		console.log(JSON.stringify([name, r.status, r.data ?? null, r.count ?? null, r.error ? r.error.code : null]));
	}
})();
