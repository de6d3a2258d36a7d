// The charts of a sweep; what charts have in common stands before this, in charts.js.
const COLOURS = ["#2f81c7", "#e0762a", "#2f9e7f", "#a3408f", "#c4262e", "#8c6bb1", "#6b8e23", "#7d8590"];
const element = id => document.getElementById(id);

function drawMatters() {
  const axes = values.axes.slice().sort((a, b) => a.share - b.share);
  draw("matters", [{
    type: "bar", orientation: "h", width: .6, x: axes.map(axis => 100 * axis.share), y: axes.map(axis => short(axis.key)),
    marker: {color: css("--accent"), opacity: .75}, text: axes.map(axis => `${(100 * axis.share).toFixed(0)} %, a factor of ${axis.factor.toFixed(2)}`),
    textposition: "auto", hovertemplate: axes.map(axis => text(axis.key) + "<extra></extra>"),
  }], {height: Math.max(110, 60 + 34 * axes.length), showlegend: false, xaxis: {title: {text: "% of the variance"}, range: [0, 100]},
       yaxis: {fixedrange: true, type: "category"}});
}

function chosenMap() {
  const x = Number(element("across").value), y = Number(element("down").value);
  if (x === y) return {x, y: -1, cells: values.axes[x].cells};
  const map = values.maps.find(one => one.x === Math.min(x, y) && one.y === Math.max(x, y));
  return x < y ? {...map, x, y} : {x, y, cells: map.cells.map(([across, down, cell]) => [down, across, cell])};
}

function drawMap() {
  const {x, y, cells} = chosenMap();
  const across = values.axes[x].labels, down = y < 0 ? [""] : values.axes[y].labels;
  const [measure, model] = JSON.parse(element("shown").value);
  const number = cell => measure === "best" ? values.models.indexOf(cell.best[0])
    : measure === "slower" ? 100 * cell.slower[model] : cell.downtime[model];
  const grid = make => down.map((_, row) => across.map((_, column) => {
    const found = cells.find(one => one[0] === column && (y < 0 || one[1] === row));
    return found ? make(found[2]) : null;
  }));
  const words = cell => `<b>${text(cell.told)}</b>, ${cell.places} places<br>` + values.models.map(name =>
    `${text(name)}: ${ms(cell.downtime[name])}, ${(100 * cell.slower[name]).toFixed(1)} % longer`).join("<br>");
  const count = values.models.length;
  const scale = measure !== "best" ? {colorscale: measure === "slower" ? "YlOrRd" : "Viridis", reversescale: measure === "downtime", colorbar: {title: {text: measure === "slower" ? "% longer" : "ms"}}}
    : {zmin: -.5, zmax: count - .5, colorscale: values.models.flatMap((_, at) => [[at / count, COLOURS[at % COLOURS.length]], [(at + 1) / count, COLOURS[at % COLOURS.length]]]),
       colorbar: {tickvals: values.models.map((_, at) => at), ticktext: values.models.map(short)}};
  const label = cell => measure === "best" ? text(cell.best.length > 1 ? cell.best[0] + " +" + (cell.best.length - 1) : cell.best[0])
    : measure === "slower" ? (100 * cell.slower[model]).toFixed(0) + " %" : ms(cell.downtime[model]);
  draw("map", [{
    type: "heatmap", x: across.map(text), y: down.map(text), z: grid(number), customdata: grid(words), xgap: 2, ygap: 2, ...scale,
    text: grid(label), texttemplate: across.length <= 12 ? "%{text}" : "", hovertemplate: "%{customdata}<extra></extra>", hoverongaps: false,
  }], {height: 120 + 46 * down.length, margin: {l: 8, r: 16, t: 8, b: 60}, xaxis: {title: {text: text(values.axes[x].key)}, type: "category"},
       yaxis: {title: {text: y < 0 ? "" : text(values.axes[y].key)}, type: "category"}});
}

function option(select, value, label) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = label;
  element(select).append(made);
}

if (element("map")) {
  if (values.models.length > 1) option("shown", JSON.stringify(["best", ""]), "the best model");
  for (const model of values.models) {
    if (values.models.length > 1) option("shown", JSON.stringify(["slower", model]), `how much longer under ${model}`);
    option("shown", JSON.stringify(["downtime", model]), `the downtime under ${model}`);
  }
  values.axes.forEach((axis, at) => { option("across", at, axis.key); option("down", at, axis.key); });
  const ranked = values.axes.map((axis, at) => at).sort((a, b) => values.axes[b].share - values.axes[a].share);
  element("across").value = ranked[0];
  element("down").value = ranked[Math.min(1, ranked.length - 1)];
  for (const id of ["shown", "across", "down"]) element(id).addEventListener("change", drawMap);
  begin(() => { drawMatters(); drawMap(); });
} else {
  begin(() => undefined);
}
