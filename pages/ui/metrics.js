// What /metrics says, and what follows from two looks at it: rates and quantiles.

// parse(TEXT): name -> [{labels, value}]. Labels of msgsys have no escapes.
export function parse(text) {
	const metrics = new Map();
	for (const line of text.split("\n")) {
		const found = line.match(/^([a-z_]+)(?:\{(.*)\})? (\S+)$/);
		if (!found) continue;
		const labels = Object.fromEntries([...(found[2] || "").matchAll(/([a-z_]+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
		if (!metrics.has(found[1])) metrics.set(found[1], []);
		metrics.get(found[1]).push({ labels, value: Number(found[3]) });
	}
	return metrics;
}

const fits = (labels, wanted) => Object.entries(wanted || {}).every(([name, value]) => labels[name] === value);
export const sum = (metrics, name, wanted) => (metrics.get(name) || []).filter((m) => fits(m.labels, wanted)).reduce((total, m) => total + m.value, 0);
export const most = (metrics, name) => Math.max(0, ...(metrics.get(name) || []).map((m) => m.value));

// quantile(Q, NOW, BEFORE, NAME, LABELS): of what a histogram counted between two looks, in seconds, linear within a bucket as Prometheus'
// histogram_quantile(); null: nothing.
export function quantile(q, now, before, name, wanted) {
	const buckets = (metrics) => new Map((metrics.get(name + "_bucket") || []).filter((m) => fits(m.labels, wanted)).map((m) => [m.labels.le, m.value]));
	const old = buckets(before);
	const counts = [...buckets(now)].map(([le, value]) => [le === "+Inf" ? Infinity : Number(le), value - (old.get(le) || 0)]);
	const total = counts.length ? counts[counts.length - 1][1] : 0;
	if (total <= 0) return null;
	const rank = q * total;
	let below = 0, floor = 0;
	for (const [bound, upTo] of counts) {
		if (upTo >= rank) return bound === Infinity ? floor : floor + (bound - floor) * (rank - below) / (upTo - below || 1);
		[below, floor] = [upTo, bound];
	}
	return floor;
}

const KEPT = 450;	// looks: 15 minutes of them
const looks = [];	// {at (ms), metrics}
const points = [];	// [time (s), values…] for the charts

// back(MS): the latest look that is so old, or the first.
const back = (ms) => looks.findLast((look) => looks[looks.length - 1].at - look.at >= ms) || looks[0];

// Counters go back to 0 when the server starts again.
function rateSince(before, name, wanted) {
	const now = looks[looks.length - 1];
	const rise = sum(now.metrics, name, wanted) - sum(before.metrics, name, wanted);
	return now.at > before.at && rise >= 0 ? (rise * 1000) / (now.at - before.at) : null;
}

export const series = {
	rates: [["sent to Kafka", "msgsys_deliveries_total", { transport: "kafka", outcome: "success" }], ["delivered", "msgsys_deliveries_total", { transport: "webhook", outcome: "success" }]],
	failures: [["refused by Kafka", "msgsys_deliveries_total", { transport: "kafka", outcome: "refused" }], ["to be retried", "msgsys_deliveries_total", { transport: "webhook", outcome: "retry" }],
		["dead", "msgsys_deliveries_total", { transport: "webhook", outcome: "dead" }]],
	latency: [["Kafka p50", 0.5, "msgsys_message_wait_seconds"], ["Kafka p99", 0.99, "msgsys_message_wait_seconds"],
		["webhook p50", 0.5, "msgsys_delivery_duration_seconds"], ["webhook p99", 0.99, "msgsys_delivery_duration_seconds"]],
	backlog: [["waiting", ["idle", "scheduled"]], ["in flight", ["sent", "received"]], ["retrying", ["retry"]]],
};

// look(TEXT): take what /metrics says now.
export function look(text) {
	const metrics = parse(text);
	looks.push({ at: Date.now(), metrics });
	if (looks.length > KEPT) looks.shift();
	const before = looks.length > 1 ? looks[looks.length - 2] : looks[0];
	const ten = back(10000).metrics;
	points.push([Date.now() / 1000, {
		rates: series.rates.map(([, name, labels]) => rateSince(before, name, labels)),
		failures: series.failures.map(([, name, labels]) => rateSince(before, name, labels)),
		latency: series.latency.map(([, q, name]) => quantile(q, metrics, ten, name)),
		backlog: series.backlog.map(([, statuses]) => statuses.reduce((total, status) => total + sum(metrics, "msgsys_messages", { status }), 0)),
	}]);
	if (points.length > KEPT) points.shift();
	return metrics;
}

// chart(NAME): the columns of a chart: times, and the values of each series.
export const chart = (name) => [points.map(([time]) => time), ...series[name].map((_, i) => points.map(([, values]) => values[name][i]))];
export const perSecond = (name, labels) => (looks.length > 1 ? rateSince(back(10000), name, labels) : null);
export const lastMinute = (q, name, labels) => (looks.length > 1 ? quantile(q, looks[looks.length - 1].metrics, back(60000).metrics, name, labels) : null);
export const latest = () => looks[looks.length - 1]?.metrics;
export function forget() { looks.length = points.length = 0; }
