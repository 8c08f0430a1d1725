// Runs of channels with a pace (msg_paces, msg_runs).
import { framed, h, links, table } from "./dom.js";
import { ask } from "./api.js";
import { at, count, interval, none, span } from "./format.js";

const page = 50;

export default function runs(params) {
	const paces = table("Paces", ["Channel", ["Messages a run", "number"], ["Every", "number"], "Next run"]);
	const list = table("Runs", [["Run", "number"], "Channel", "Due", ["Began late by", "number"], ["Took", "number"], ["Messages", "number"], ["Succeeded", "number"], ["Failed", "number"], "Latest error"]);
	const which = h("nav", { class: "actions", "aria-label": "Which runs" });
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	const channel = params.get("channel"), before = params.get("before"), busy = params.has("busy");
	const address = (wanted) => {
		const query = new URLSearchParams(Object.entries({ ...(channel && { channel }), ...(busy && { busy: "1" }), ...wanted }).filter(([, value]) => value));
		return "#/runs" + (query.size ? "?" + query : "");
	};
	const seconds = (from, to) => (new Date(to) - new Date(from)) / 1000;
	// a run's messages lie between these ids, with others of its channel perhaps that were tried again
	const messages = (r) => h("a", { href: "#/messages?" + new URLSearchParams({ channel: r.channel, least: r.first_id, before: r.last_id + 1 }), data: { act: "messages" }, "aria-label": r.claimed + " messages of run " + r.id }, count(r.claimed));
	return {
		element: h("div", {}, h("h3", {}, "Paces"), framed(paces), h("h3", {}, "Runs"), which, framed(list), pages),
		async refresh(signal) {
			const query = new URLSearchParams({ order: "id.desc", limit: page + 1, ...(channel && { channel: "eq." + channel }), ...(busy && { claimed: "gt.0" }), ...(before && { id: "lt." + before }) });
			const [p, found] = await Promise.all([ask("msg_paces?order=channel", { signal }), ask("msg_runs?" + query, { signal })]);
			paces.show(p, (c) => c.channel, (c) => [h("a", { href: "#/runs?" + new URLSearchParams({ channel: c.channel }), data: { act: "runs" } }, c.channel), count(c.batch), interval(c.every), at(c.next_at)], "No channel has a pace. Set one with msg_pace_set().");
			const rows = found.slice(0, page);
			list.show(rows, (r) => r.id, (r) => [h("span", {}, String(r.id)), r.channel, at(r.due_at), span(Math.max(0, seconds(r.due_at, r.started_at))), r.finished_at ? span(Math.max(0, seconds(r.started_at, r.finished_at))) : "under way",
				r.first_id ? messages(r) : count(r.claimed), count(r.succeeded), h("span", { class: r.failed ? "bad" : "" }, (r.failed ? "⚠ " : "") + count(r.failed)), r.error || none], channel || busy || before ? "No such run." : "No run yet.");
			links(which, [channel && ["Runs of all channels", address({ channel: null })], busy ? ["Also those that found nothing", address({ busy: null })] : ["Only those that found messages", address({ busy: "1" })]].filter(Boolean));
			links(pages, [before && ["Newest", address({})], found.length > page && ["Older", address({ before: rows[page - 1].id })]].filter(Boolean));
		},
	};
}
