// Runs of channels with a pace (msg_paces, msg_runs).
import { framed, h, links, table } from "./dom.js";
import { ask, orNone } from "./api.js";
import { at, count, interval, none, span } from "./format.js";

const page = 50;

export const absent = (what) => h("p", { class: "absent" }, what + " are not in this installation of msgsys. They come with a later version of the extension: ALTER EXTENSION msgsys UPDATE.");

export default function runs(params) {
	const element = h("div");
	const paces = table("Paces", ["Channel", ["Messages a run", "number"], ["Every", "number"], "Next run"]);
	const list = table("Runs", [["Run", "number"], "Channel", "Due", ["Began late by", "number"], ["Took", "number"], ["Messages", "number"], ["Succeeded", "number"], ["Failed", "number"], "Error"]);
	const pages = h("nav", { class: "actions", "aria-label": "Pages" });
	return {
		element,
		async refresh(signal) {
			const before = params.get("before");
			const [p, found] = await Promise.all([orNone(ask("msg_paces?order=channel", { signal })), orNone(ask("msg_runs?order=id.desc&limit=" + (page + 1) + (before ? "&id=lt." + before : ""), { signal }))]);
			if (found === null) {
				element.replaceChildren(absent("Runs"));
				return;
			}
			if (!list.isConnected) element.replaceChildren(h("h3", {}, "Paces"), framed(paces), h("h3", {}, "Runs"), framed(list), pages);
			paces.show(p || [], (c) => c.channel, (c) => [c.channel, count(c.batch), interval(c.every), at(c.next_at)], "No channel has a pace. Set one with msg_pace_set().");
			const rows = found.slice(0, page);
			list.show(rows, (r) => r.id, (r) => [h("span", {}, String(r.id)), r.channel, at(r.due_at), span(Math.max(0, (new Date(r.started_at) - new Date(r.due_at)) / 1000)),
				r.finished_at ? span((new Date(r.finished_at) - new Date(r.started_at)) / 1000) : "under way", r.claimed, r.succeeded, h("span", { class: r.failed ? "bad" : "" }, (r.failed ? "⚠ " : "") + r.failed), r.error || none], "No run yet.");
			links(pages, [before && ["The newest", "#/runs"], found.length > page && ["Older", "#/runs?before=" + rows[page - 1].id]].filter(Boolean));
		},
	};
}
