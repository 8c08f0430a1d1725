# Each kind of call that the postgrest of PyPI offers, against the facade at argv[1] with the token argv[2]; prints a line of JSON
# for each: name, data, count, error. PYTHONPATH says where the client is.
import json
import sys

from postgrest import APIError, CountMethod, ReturnMethod, SyncPostgrestClient

client = SyncPostgrestClient(sys.argv[1], headers={"Authorization": "Bearer " + sys.argv[2]})
m = lambda: client.from_("messages")
calls = {
    "insert": lambda: m().insert({"payload": {"n": 6}, "message_key": "p1"}, returning=ReturnMethod.minimal),
    "insert shown": lambda: m().insert([{"payload": {"n": 7}, "message_key": "p2"}, {"payload": {"n": 8}, "message_key": "p3"}], count=CountMethod.exact),
    "select": lambda: m().select("message_key").like("message_key", "p*").order("id", desc=True),
    "count": lambda: m().select("*", count=CountMethod.exact, head=True).like("message_key", "p*"),
    "range": lambda: m().select("message_key", count=CountMethod.exact).like("message_key", "p*").order("id").range(1, 1),
    "single": lambda: m().select("message_key").eq("message_key", "p1").single(),
    "maybe": lambda: m().select("id").eq("id", -1).maybe_single(),
    "csv": lambda: m().select("message_key").eq("message_key", "p1").csv(),
    "filters": lambda: m().select("message_key").in_("message_key", ["p1", "p,2"]).not_.is_("payload", "null").contains("payload", {"n": 6}),
    "or": lambda: m().select("message_key").or_("message_key.eq.p1,message_key.eq.p3").order("id"),
    "match": lambda: m().select("message_key").match({"message_key": "p2"}),
    "update": lambda: m().update({"event_type": "e"}, count=CountMethod.exact).eq("message_key", "p1"),
    "upsert": lambda: client.from_("msg_channels").upsert({"channel": "py", "topic": "t"}, on_conflict="channel"),
    "rpc": lambda: client.rpc("msg_running", {"channel": "py"}),
    "rpc get": lambda: client.rpc("msg_list", {"limit": 1}, get=True).select("status"),
    "rpc filtered": lambda: client.rpc("msg_list", {}).select("message_key").eq("message_key", "p2"),
    "delete": lambda: m().delete().like("message_key", "p*"),
    "table wrong": lambda: client.from_("nope").select("*"),
}
for name, call in calls.items():
    try:
        r = call().execute()
        data = getattr(r, "data", None)
        if isinstance(data, list) and data and isinstance(data[0], dict) and "id" in data[0]:
            data = sorted(row.get("message_key") for row in data)
        elif isinstance(data, list) and data and isinstance(data[0], dict) and "topic" in data[0]:
            data = [row["topic"] for row in data]
        print(json.dumps([name, data, getattr(r, "count", None), None]))
    except APIError as e:
        print(json.dumps([name, None, None, e.code]))
