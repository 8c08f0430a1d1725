// Failures: dead messages grouped by error, and retry of a group. The history is never searched as a whole: one window of ids at a time.
import { button, framed, h, links, say, sure, table } from "./dom.js";
import { ask, call } from "./api.js";
import { ago, count, short } from "./format.js";
import { again, now } from "./pulse.js";

const windowIds = 100000;
const most = 10000;			// dead messages of a window that are grouped

// pattern(ERROR): the error as a LIKE pattern in which % stands for what differs from message to message: ids, numbers, addresses; a status code
// tells one failure from another.
export const pattern = (error) => error.replace(/[\\%_]/g, "\\$&")
	.replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b0x[0-9a-f]+\b|\b(?=[a-f]*\d)[0-9a-f]{8,}\b|(?<!status \d*)\d+(?:[.:]\d+)*/gi, "%");
const plain = (like) => like.replace(/\\([\\%_])|%/g, (all, kept) => kept || "…");

function groups(rows) {
	const found = new Map();
	for (const m of rows) {
		const like = m.last_error === null ? null : pattern(m.last_error);
		const key = m.channel + " " + like;
		const group = found.get(key) || { key, channel: m.channel, like, example: m.last_error, count: 0, first: m.finished_at, last: m.finished_at, newest: m.id };
		group.count++;
		if (m.finished_at < group.first) group.first = m.finished_at;
		if (m.finished_at > group.last) group.last = m.finished_at;
		found.set(key, group);
	}
	return [...found.values()].sort((a, b) => b.count - a.count);
}

async function retry(g) {
	const what = count(g.count) + (g.count === 1 ? " message" : " messages");
	if (!(await sure("Retry " + what + " of " + g.channel + "?", "All dead messages of this channel with the error “" + plain(g.like) + "” that died since " + new Date(g.first).toLocaleString() + " get all their attempts again.", "Retry " + what))) return;
	const done = await call("msg_redrive", { channel: g.channel, from: g.first, error: g.like });
	await again();
	say("Retried " + count(done) + ".");
}

export default function failures(params) {
	const list = table("Failures", ["Error", "Channel", ["Messages", "number"], "Latest", "Earliest", ["Actions", "actions", true]]);
	const where = h("p", {}, "…");
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	return {
		element: h("div", {}, where, framed(list), pages),
		async refresh(signal) {
			const newest = Number((await ask("messages?select=id&order=id.desc&limit=1", { signal }))[0]?.id ?? 0);
			const to = Math.min(newest, Number(params.get("to")) || newest);
			const from = Math.max(1, to - windowIds + 1);
			const rows = await ask("messages?select=id::text,channel,last_error,finished_at&status=eq.dead&id=gte." + from + "&id=lte." + to + "&order=id.desc&limit=" + most, { signal });
			where.textContent = newest ? (rows.length >= most ? "The newest " + count(most) : count(rows.length)) + " dead among the messages " + from + " to " + to + "." : "There is no message yet.";
			list.show(groups(rows).map((g) => ({ ...g, operator: now.operator })), (g) => g.key, (g) => [h("span", { title: g.example }, g.like === null ? "(no error was noted)" : short(plain(g.like), 300)), g.channel, count(g.count), ago(g.last), ago(g.first),
				[h("a", { class: "button", href: "#/messages?" + new URLSearchParams({ status: "dead", channel: g.channel, ...(g.like && { error: plain(g.like).replace(/…+/g, "*") }) }), "aria-label": "Show messages with this error" }, "Show"),
					g.operator && g.like !== null && button("Retry…", () => retry(g), { data: { act: "retry" }, "aria-label": "Retry messages with this error" })].filter(Boolean)], "No dead message.");
			links(pages, [to < newest && ["The newest messages", "#/failures"], from > 1 && ["Look at older messages", "#/failures?to=" + (from - 1)]].filter(Boolean));
		},
	};
}
