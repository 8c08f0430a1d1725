// Numbers, times and quoted text, as people and programs want to read them.
export const none = "–";

export const count = (n) => (n === null || n === undefined ? none : Number(n).toLocaleString());
export const several = (n, one, many) => count(n) + " " + (Number(n) === 1 ? one : many);
export const rate = (n) => (n === null || n === undefined ? none : n.toLocaleString(undefined, { maximumFractionDigits: n < 10 ? 1 : 0 }) + "/s");

// span(SECONDS): about how long, in two units.
export function span(seconds) {
	if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return none;
	if (seconds < 0) return "−" + span(-seconds);
	if (seconds < 0.9995) return seconds === 0 ? "0 s" : Number((seconds * 1000).toPrecision(3)).toLocaleString() + " ms";
	if (seconds < 60) return Number(seconds.toPrecision(3)) + " s";
	const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
	const first = units.findIndex(([, size]) => seconds >= size);
	const whole = Math.floor(seconds / units[first][1]);
	const rest = first < 3 ? Math.floor((seconds - whole * units[first][1]) / units[first + 1][1]) : 0;
	return whole + " " + units[first][0] + (rest ? " " + rest + " " + units[first + 1][0] : "");
}

// seconds(INTERVAL): of an interval as PostgreSQL writes it: "1 day 02:03:04.5"; a month counts as 30 days.
export function seconds(interval) {
	if (!interval) return null;
	let sum = 0;
	for (const [, n, unit] of interval.matchAll(/(-?\d+) (year|mon|day)/g)) sum += n * { year: 31557600, mon: 2592000, day: 86400 }[unit];
	const clock = interval.match(/(-?)(\d+):(\d+):([\d.]+)/);
	if (clock) sum += (clock[1] ? -1 : 1) * (clock[2] * 3600 + clock[3] * 60 + Number(clock[4]));
	return sum;
}

export const interval = (text) => span(seconds(text));
export const at = (text) => (text ? new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : none);
export const exactly = (text) => new Date(text).toLocaleString(undefined, { year: "numeric", month: "short", day: "numeric", hour: "numeric", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
export const short = (text, most = 120) => (text && text.length > most ? text.slice(0, most - 1) + "…" : text || "");

export const sqlText = (text) => "'" + String(text).replaceAll("'", "''") + "'";
export const shellText = (text) => "'" + String(text).replaceAll("'", "'\\''") + "'";

// pretty(JSON): indented, and not read and written again, for that would change large numbers.
export function pretty(json) {
	let out = "", depth = 0;
	const line = () => "\n" + "  ".repeat(depth);
	for (const [part] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[{]\s*[\]}]|[[\]{},:]|[^\s"[\]{},:]+/g)) {
		if (part === "{" || part === "[") { depth++; out += part + line(); }
		else if (part === "}" || part === "]") { depth--; out += line() + part; }
		else if (part === ",") out += part + line();
		else if (part === ":") out += ": ";
		else out += part;
	}
	return out;
}

// bytes(HEX): of a bytea as PostgreSQL writes it.
export const bytes = (hex) => Uint8Array.from(hex.slice(2).match(/../g) || [], (b) => parseInt(b, 16));
