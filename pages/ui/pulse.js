// What every section wants to know of the moment, and what of it is alarming.
import { $, h } from "./dom.js";
import { ask, metricsText } from "./api.js";
import { at } from "./format.js";
import { look } from "./metrics.js";

// the latest answers; operator: whether the token's role may act
export const now = { operator: false, workers: [], pauses: [], breakers: [], disabled: [], metrics: null };

// again(): ask anew at once, as after an action; app.js says how.
let anew = null;
export const onAgain = (callback) => { anew = callback; };
export const again = () => anew();

const well = ["idle", "busy", "paused", "no broker set", "not needed", "standby"];
export const isWell = (worker) => well.includes(worker.state);
const work = { relay: "nothing is sent to Kafka", receiver: "nothing is read back from Kafka, and no acknowledgement counts", webhook: "no webhook is called", scheduler: "nothing is begun at its time" };

// alarms(): what is wrong: [heading, text].
function alarms() {
	const found = [];
	for (const stage of new Set(now.workers.map((w) => w.stage))) {
		const workers = now.workers.filter((w) => w.stage === stage);
		const ill = workers.filter((w) => !isWell(w));
		if (!ill.length) continue;
		const states = [...new Set(ill.map((w) => w.state))].join(", ");
		const why = ill.map((w) => w.last_error).find(Boolean);
		found.push([ill.length === workers.length ? "No " + stage + " worker runs" : ill.length + " of " + workers.length + " " + stage + " workers do not run",
			states + (ill.length === workers.length && work[stage] ? ": " + work[stage] : "") + (why ? ". Latest error: " + why : "") + "."]);
	}
	if (!now.workers.length) found.push(["No worker runs", "nothing is sent. Is msgsys in shared_preload_libraries, and this database in msgsys.databases?"]);
	for (const p of now.pauses)
		found.push([p.channel === "*" ? "Everything is paused" : "Channel " + p.channel + " is paused", "since " + at(p.paused_at) + ", by " + p.paused_by + (p.reason ? ": " + p.reason : "") + "."]);
	for (const channel of new Set(now.breakers.map((b) => b.channel))) {
		const breakers = now.breakers.filter((b) => b.channel === channel);
		const open = breakers.find((b) => b.state === "open");
		const b = open || breakers[0];
		found.push(["Circuit breaker of " + channel + " is " + (open ? "open" : "half-open"), b.failures + " of " + b.calls + " calls failed; " + (open ? "nothing is sent there" : "one request tries whether it works again") +
			(open && b.until ? ", next try at " + new Date(b.until).toLocaleTimeString() : "") + "."]);
	}
	for (const w of now.disabled) found.push(["Webhook of " + w.channel + " is disabled", "since " + at(w.disabled_at) + (w.disabled_reason ? ": " + w.disabled_reason : "") + "."]);
	return found;
}

let shown = null;

// Only what changed is said again.
export function banner(found) {
	const text = JSON.stringify(found);
	if (text === shown) return;
	shown = text;
	$("banner").replaceChildren(...(found.length ? [h("ul", {}, found.map(([heading, rest]) => h("li", {}, h("span", { "aria-hidden": "true" }, "⚠ "), h("strong", {}, heading), ": " + rest)))] : []));
}

// beat(SIGNAL): ask, and show the banner. The metrics need no token and no database, the rest does.
export async function beat(signal) {
	const [text, workers, pauses, breakers, disabled] = await Promise.all([metricsText(signal), ask("msg_workers?order=stage,worker", { signal }), ask("msg_pauses?order=channel", { signal }),
		ask("msg_breakers?order=channel,state.desc", { signal }), ask("msg_webhooks?select=channel,disabled_at,disabled_reason&disabled_at=not.is.null&order=channel", { signal })]);
	// what was asked before somebody signed out, or in again, is not shown after it
	signal.throwIfAborted();
	Object.assign(now, { metrics: look(text), workers, pauses, breakers, disabled });
	banner(alarms());
}

// Whether the token's role is an operator's: readers may not see what answers said (msg_attempts.excerpt), operators may; no row is read.
export async function amOperator(signal) {
	await ask("msg_channel_settings?limit=1", { signal });
	try {
		await ask("msg_attempts?select=excerpt&limit=0", { signal });
		return true;
	} catch (error) {
		if (error.status !== 403) throw error;
		return false;
	}
}

