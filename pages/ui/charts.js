// The charts of the overview, drawn by uPlot. Series differ in their dashes too, not in colour alone.
import { h } from "./dom.js";
import { count, none, rate, span } from "./format.js";
import { chart, series } from "./metrics.js";

const kinds = [
	["rates", "Messages a second", rate], ["backlog", "Backlog", count],
	["latency", "Latency over 10 s", span], ["failures", "Failures a second", rate],
];
const dashes = [[], [6, 3], [2, 2], [8, 3, 2, 3]];

// A canvas does not know light-dark(): an element that has the colour says what it comes to.
const probe = h("span", { class: "unseen", "aria-hidden": "true" });
function colour(name) {
	if (!probe.isConnected) document.body.append(probe);
	probe.style.color = "var(" + name + ")";
	return getComputedStyle(probe).color;
}

// charts(): {element, draw, end}.
export function charts() {
	const parts = kinds.map(([name, title, format]) => {
		const words = h("p", { class: "unseen" });
		const place = h("div", { "aria-hidden": "true" });
		const figure = h("figure", {}, h("figcaption", {}, title), place, words);
		let plot = null;
		const width = () => Math.max(200, figure.clientWidth - 2);
		const begin = () => {
			const axis = { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { stroke: () => colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
			return new window.uPlot({
				width: width(), height: 170,
				cursor: { drag: { x: false, y: false } },
				scales: { y: { range: (u, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
				series: [{ value: (u, v) => (v ? new Date(v * 1000).toLocaleTimeString() : none) },
					...series[name].map(([label], i) => ({ label, stroke: () => colour("--series-" + i), width: 2, dash: dashes[i], points: { show: false }, spanGaps: name !== "latency", value: (u, v) => format(v) }))],
				axes: [{ ...axis, values: (u, times) => times.map((t) => new Date(t * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" })), space: 80 },
					{ ...axis, size: 62, values: (u, values) => values.map((v) => (name === "backlog" && v % 1 ? "" : format(v))) }],
			}, chart(name), place);
		};
		const draw = () => {
			const data = chart(name);
			words.textContent = title + " now: " + series[name].map(([label], i) => label + " " + format(data[i + 1][data[i + 1].length - 1] ?? null)).join(", ");
			if (!window.uPlot) return;
			if (!plot && figure.clientWidth) plot = begin();
			else plot?.setData(data);
			// the legend has the latest values, or those under the pointer
			if (plot && (plot.cursor.left ?? -1) < 0) plot.setLegend({ idx: data[0].length - 1 }, false);
		};
		return { figure, draw, resize: () => plot?.setSize({ width: width(), height: 170 }), redraw: () => plot?.redraw(false), end: () => plot?.destroy() };
	});
	const sizes = new ResizeObserver(() => parts.forEach((p) => p.resize()));
	const element = h("div", { class: "charts" }, window.uPlot ? parts.map((p) => p.figure) : h("p", {}, "The charts are not installed: uPlot could not be fetched when msgsys was built. The numbers above are all there is."));
	const redraw = () => parts.forEach((p) => p.redraw());
	sizes.observe(element);
	addEventListener("theme", redraw);
	return { element, draw: () => parts.forEach((p) => p.draw()), end: () => { sizes.disconnect(); removeEventListener("theme", redraw); parts.forEach((p) => p.end()); } };
}
