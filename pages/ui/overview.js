// Overview: whether messages flow.
import { framed, h, table } from "./dom.js";
import { ask } from "./api.js";
import { charts } from "./charts.js";
import { at, count, rate, seconds, span } from "./format.js";
import { lastMinute, most, perSecond, sum } from "./metrics.js";
import { isWell, now } from "./pulse.js";

const kafka = { transport: "kafka", outcome: "success" }, webhook = { transport: "webhook", outcome: "success" };

export default function overview() {
	const tiles = h("dl", { class: "tiles" });
	const plots = charts();
	const waits = table("What waits", ["Channel", "Status", ["Messages", "number"], ["Oldest", "number"]]);
	const workers = table("Who works", ["Stage", ["Worker", "number"], "State", ["Sent", "number"], ["Received", "number"], ["Delivered", "number"], ["Failed", "number"], "Latest error"]);
	const values = new Map();
	const tile = (name, label, value, link, bad) => {
		if (!values.has(name)) {
			const dd = h("dd", { id: "tile-" + name });
			values.set(name, dd);
			tiles.append(h("div", {}, h("dt", {}, link ? h("a", { href: link }, label) : label), dd));
		}
		const dd = values.get(name);
		if (dd.textContent !== value) dd.textContent = value;
		dd.className = bad ? "bad" : "";
	};
	return {
		element: h("div", {}, tiles, plots.element, h("h3", {}, "What waits"), framed(waits), h("h3", {}, "Who works"), framed(workers)),
		async refresh(signal) {
			let backlog, bound = "";
			try {
				backlog = await ask("msg_backlog?order=channel,status", { signal });
			} catch (error) {
				if (error.status !== 503) throw error;
				// the sample of the metrics counts up to a bound, and no longer
				bound = " or more";
				backlog = (now.metrics.get("msgsys_messages") || []).filter((m) => m.value > 0).map((m) => ({ channel: m.labels.channel, status: m.labels.status, count: m.value, oldest_age: null }));
			}
			const of = (...statuses) => backlog.filter((b) => statuses.includes(b.status)).reduce((total, b) => total + b.count, 0);
			tile("waiting", "Waiting", count(of("idle")) + bound, "#/messages?status=idle");
			tile("scheduled", "Scheduled", count(of("scheduled")) + bound, "#/messages?status=scheduled");
			tile("flight", "In flight", count(of("sent", "received")) + bound);
			tile("retrying", "Retrying", count(of("retry")) + bound, "#/messages?status=retry", of("retry") > 0);
			const dead = sum(now.metrics, "msgsys_worker_events_total", { event: "dead" });
			tile("dead", "Dead, since the server's start", count(dead), "#/failures", dead > 0);
			const oldest = most(now.metrics, "msgsys_oldest_pending_age_seconds");
			tile("oldest", "Oldest waiting", oldest ? span(oldest) : "–", null, oldest > 60);
			tile("sent", "Sent to Kafka", rate(perSecond("msgsys_deliveries_total", kafka)));
			tile("delivered", "Delivered", rate(perSecond("msgsys_deliveries_total", webhook)));
			const both = (name) => span(lastMinute(0.5, name)) + " / " + span(lastMinute(0.99, name));
			tile("latency-kafka", "Creation to Kafka, p50 / p99", both("msgsys_message_wait_seconds"));
			tile("latency-webhook", "Webhook call, p50 / p99", both("msgsys_delivery_duration_seconds"));
			plots.draw();
			waits.show(backlog, (b) => b.channel + " " + b.status, (b) => [h("a", { href: "#/messages?" + new URLSearchParams({ status: b.status, channel: b.channel }) }, b.channel), b.status, count(b.count) + bound,
				span(seconds(b.oldest_age))], "Nothing waits.");
			workers.show(now.workers, (w) => w.stage + w.worker, (w) => [w.stage, count(w.worker), h("span", { class: isWell(w) ? "" : "bad" }, (isWell(w) ? "" : "⚠ ") + w.state), count(w.sent), count(w.received),
				count(w.delivered), count(w.failed), w.last_error ? w.last_error + (w.last_error_at ? " (" + at(w.last_error_at) + (w.error_over_at ? ", over" : "") + ")" : "") : ""], "No worker runs.");
		},
		end: plots.end,
	};
}
