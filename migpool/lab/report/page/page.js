// How each kind looks is said in kinds.py. A result of a newer version may have one that is not there.
// What is waited for is hatched, what is worked is plain: the colours need not be told apart.
const kindOf = name => values.kinds[name] || values.kinds.other;
function marker(kind) {
  const {colour, waits} = kindOf(kind);
  const made = {color: colour, line: {width: 0}};
  // A page full of hatching is slow to print: there what is waited for is framed.
  if (waits && printing) return {color: css("--back"), line: {width: .7, color: colour}};
  if (waits) made.pattern = {shape: "/", fgcolor: colour, bgcolor: css("--back"), size: 5, solidity: .45, fillmode: "overlay"};
  return made;
}

function legend(id, kinds) {
  const place = document.getElementById(id);
  place.replaceChildren(...kinds.map(kind => {
    const one = document.createElement("span"), mark = document.createElement("i");
    mark.style.setProperty("--colour", kindOf(kind).colour);
    if (kindOf(kind).waits) mark.className = "wait";
    one.title = kindOf(kind).meaning;
    one.append(mark, kind);
    return one;
  }));
}
const rows = count => Math.max(110, 46 + 34 * count);

function drawDowntime(part, name) {
  const models = part.models.slice().reverse();
  const labels = models.map(model => short(model.name));
  const traces = [
    {type: "bar", orientation: "h", x: models.map(model => model.median), y: labels, width: .6, name: "median",
     marker: {color: css("--accent"), opacity: .75},
     text: models.map(model => ms(model.median)), textposition: "inside", insidetextanchor: "start", textfont: {color: "#ffffff"},
     hovertemplate: models.map(model => text(model.name) + ": median " + ms(model.median) + "<extra></extra>")},
    {type: "scatter", mode: "markers", name: "each run",
     x: models.flatMap(model => model.downtimes), y: models.flatMap(model => model.downtimes.map(() => short(model.name))),
     marker: {color: css("--text"), size: 7, symbol: "line-ns-open", line: {width: 1.5}},
     hovertemplate: "one run: %{x:.1f} ms<extra></extra>"},
  ];
  const shapes = [], annotations = [];
  if (part.bound !== null) {
    shapes.push({type: "line", x0: part.bound, x1: part.bound, yref: "paper", y0: 0, y1: 1, line: {color: css("--path"), dash: "dash", width: 1.5}});
    annotations.push({x: part.bound, yref: "paper", y: 1, yanchor: "bottom", showarrow: false, text: "lower bound " + ms(part.bound), font: {size: 11, color: css("--path")}});
  }
  draw(name + "-downtime", traces, {
    height: rows(models.length) + 40, margin: {l: 8, r: 16, t: 26, b: 36}, shapes, annotations, showlegend: false,
    xaxis: {title: {text: "ms"}, rangemode: "tozero"}, yaxis: {fixedrange: true, type: "category"}, uirevision: "same",
  });
}

function drawKinds(part, name) {
  const models = part.models.slice().reverse();
  const kinds = Object.keys(values.kinds).filter(kind => models.some(model => (model.kinds[kind] || 0) > .005 * model.median));
  const traces = kinds.map(kind => ({
    type: "bar", orientation: "h", name: kind, marker: marker(kind), width: .66,
    x: models.map(model => model.kinds[kind] || 0), y: models.map(model => short(model.name)),
    hovertemplate: "<b>" + kind + "</b> %{x:.1f} ms<br>" + text(kindOf(kind).meaning) + "<extra></extra>",
  }));
  legend(name + "-kinds-legend", kinds);
  draw(name + "-kinds", traces, {
    height: rows(models.length), barmode: "stack", showlegend: false,
    xaxis: {title: {text: "ms", standoff: 2}}, yaxis: {fixedrange: true, type: "category"}, uirevision: "same",
  });
}

function drawSwitchover(part, name, state) {
  const model = part.models[state.model], run = model.run;
  const about = document.getElementById(name + "-about");
  const chart = document.getElementById(name + "-switchover");
  if (!run) { about.textContent = "The result has no trace of this model."; Plotly.purge(chart); return; }
  const lanes = run.lanes[state.by];
  about.textContent = (model.downtimes.length > 1 ? `Run ${run.repeat} of ${model.name}, the one with the median downtime, ${ms(run.downtime)}. ` : "") +
    (state.model > 0 && run.why ? `What limits it: ${run.why} ` : "") + "Time 0 is the stop at the source." +
    (lanes.leftOut ? ` ${lanes.leftOut} of the shortest spans are not drawn.` : "");
  const by = {};
  const add = (kind, lane, begin, end, words) => {
    const trace = by[kind] = by[kind] || {x: [], y: [], base: [], customdata: []};
    trace.x.push(end - begin); trace.y.push(lane); trace.base.push(begin); trace.customdata.push(words);
  };
  const words = (kind, begin, end, device, chunk, thread, behind) => `<b>${text(kind)}</b> ${ms(end - begin)}, from ${ms(begin)}` +
    (device ? `<br>${text(device)}${chunk >= 0 ? ", chunk " + chunk : ""}` : "") + (thread ? `<br>thread ${text(thread)}` : "") +
    (behind ? `<br>behind ${text(behind)}` : "");
  for (const [lane, kind, device, thread, chunk, begin, end] of lanes.spans)
    add(lanes.words[kind], lane, begin, end, words(lanes.words[kind], begin, end, lanes.words[device], chunk, lanes.words[thread], ""));
  for (const link of run.path)
    add(link.kind, 0, link.begin_ms, link.end_ms, words(link.kind, link.begin_ms, link.end_ms, link.device, link.chunk, link.thread, link.behind));
  const drawn = Object.keys(by).sort((a, b) => kindOf(a).layer - kindOf(b).layer || a.localeCompare(b));
  legend(name + "-legend", drawn);
  const traces = drawn.map(kind => ({
    type: "bar", orientation: "h", name: kind, ...by[kind], width: kindOf(kind).narrow ? .2 : .78, marker: marker(kind),
    hovertemplate: "%{customdata}<extra></extra>",
  }));
  if (state.path) {
    const x = [], y = [];
    run.path.forEach((link, at) => { x.push(link.begin_ms, link.end_ms); y.push(lanes.path[at], lanes.path[at]); });
    traces.push({type: "scatter", mode: "lines", name: "critical path", x, y, hoverinfo: "skip", line: {color: css("--path"), width: 2}});
  }
  const count = lanes.names.length, height = 96 + 24 * count;
  draw(name + "-switchover", traces, {
    height, barmode: "overlay", bargap: 0, margin: {l: 8, r: 16, t: narrow() ? 76 : 66, b: 20}, showlegend: false, uirevision: state.model + state.by,
    xaxis: {title: {text: "ms since the stop", standoff: 2}, side: "top", range: [0, run.downtime], zeroline: false},
    yaxis: {tickvals: lanes.names.map((_, at) => at), ticktext: lanes.names.map(short), range: [count - .4, -.6], fixedrange: true, showgrid: false, zeroline: false, tickfont: {size: 11}},
  }, MOVING);
}

function drawResources(part, name, state) {
  const run = part.models[state.model].run, id = name + "-resources";
  const about = document.getElementById(name + "-replay");
  if (!run || run.replayed === null) { about.textContent = "There is no replay of this model."; Plotly.purge(id); return; }
  about.textContent = "How much shorter the downtime of this run would be with one resource out of the way: the recorded steps played " +
    `again without it. With everything as it was, the replay comes to ${ms(run.replayed)} for the ${ms(run.downtime)} that were measured. The parts do not add up.`;
  const found = run.resources.filter(one => one.shorter_ms >= .005 * run.downtime).slice(0, 8).reverse();
  if (!found.length) { about.textContent += " No resource by itself makes it noticeably shorter."; Plotly.purge(id); return; }
  const label = one => one.resource + (one.side ? ", " + one.side : one.resource === "workers" || one.resource === "big lock" || one.resource.endsWith(" in parallel") ? ", both sides" : "");
  draw(id, [{
    type: "bar", orientation: "h", width: .6, marker: {color: css("--accent"), opacity: .75},
    x: found.map(one => one.shorter_ms), y: found.map(label), customdata: found.map(one => text(one.says).replace(/(.{50,70}) /g, "$1<br>")),
    text: found.map(one => ` ${ms(one.shorter_ms)} (${(100 * one.shorter_ms / run.replayed).toFixed(0)} %)`), textposition: "outside", cliponaxis: false,
    hovertemplate: "%{customdata}<extra></extra>",
  }], {height: rows(found.length), margin: {l: 8, r: 120, t: 8, b: 40}, showlegend: false, xaxis: {title: {text: "ms shorter"}}, yaxis: {fixedrange: true, type: "category"}, uirevision: "same"});
}

function drawMemory(part, name, state) {
  const runs = part.models.filter(model => model.run && model.run.memory.length);
  const id = name + "-memory";
  if (!runs.length) return;
  const dashes = ["solid", "dot", "dash", "longdash", "dashdot", "longdashdot"];
  const colours = ["#2f81c7", "#e0762a", "#2f9e7f", "#a3408f", "#c4262e", "#8c6bb1", "#7d8590", "#6b8e23"];
  const traces = runs.map((model, at) => ({
    type: "scatter", mode: "lines", name: short(model.name), visible: model === part.models[state.model] ? true : "legendonly", line: {shape: "hv", width: 1.6, color: colours[at % colours.length], dash: dashes[at % dashes.length]},
    x: model.run.memory.map(sample => sample[0]), y: model.run.memory.map(sample => sample[1] / MIB),
    hovertemplate: text(model.name) + "<br>%{y:.2f} MiB at %{x:.1f} ms<extra></extra>",
  }));
  const budget = Math.max(...runs.map(model => model.run.budget || 0)) / MIB;
  draw(id, traces, {
    height: 320, margin: {l: 8, r: 16, t: 22, b: 80}, xaxis: {title: {text: "ms since the stop", standoff: 2}},
    yaxis: {title: {text: "MiB in use"}, range: [0, budget * 1.08], fixedrange: true}, legend: {orientation: "h", y: -.2, yanchor: "top", x: 0, font: {size: 11}},
    shapes: [{type: "line", xref: "paper", x0: 0, x1: 1, y0: budget, y1: budget, line: {color: css("--path"), dash: "dash", width: 1.5}}],
    annotations: [{xref: "paper", x: 1, xanchor: "right", y: budget, yanchor: "bottom", showarrow: false, text: `budget ${budget.toPrecision(3)} MiB`, font: {size: 11, color: css("--path")}}],
    uirevision: state.model, showlegend: true,
  });
}

function drawLink(part, name, state) {
  const id = name + "-link", run = part.models[state.model].run, chart = document.getElementById(id);
  if (!chart) return;
  if (!run || !run.link.use.length) { Plotly.purge(id); return; }
  const way = (at, label, colour) => ({
    type: "scatter", mode: "lines", name: label, line: {shape: "hvh", width: 1.6, color: colour, dash: at > 1 ? "dot" : "solid"},
    x: run.link.use.map(sample => sample[0]), y: run.link.use.map(sample => sample[at]),
    hovertemplate: label + ": %{y:.1f} " + run.link.unit + " at %{x:.1f} ms<extra></extra>",
  });
  const rate = run.link.rate;
  draw(id, [way(1, "from the source", css("--accent")), way(2, "to the source", css("--text"))], {
    height: 280, margin: {l: 8, r: 16, t: 22, b: 80}, xaxis: {title: {text: "ms since the stop", standoff: 2}},
    yaxis: {title: {text: run.link.unit}, rangemode: "tozero", fixedrange: true}, uirevision: state.model, showlegend: true,
    legend: {orientation: "h", y: -.2, yanchor: "top", x: 0, font: {size: 11}},
    shapes: rate ? [{type: "line", xref: "paper", x0: 0, x1: 1, y0: rate, y1: rate, line: {color: css("--path"), dash: "dash", width: 1.5}}] : [],
    annotations: rate ? [{xref: "paper", x: 1, xanchor: "right", y: rate, yanchor: "bottom", showarrow: false, text: `its rate, ${rate.toPrecision(3)} ${run.link.unit}`, font: {size: 11, color: css("--path")}}] : [],
  });
}

function fillTable(part, name, state, what) {
  const table = document.getElementById(name + "-" + what), run = part.models[state.model].run;
  if (!table) return;
  table.replaceChildren();
  if (!run) return;
  const row = (cells, tag) => {
    const made = document.createElement("tr");
    for (const [cell, kind] of cells) {
      const one = document.createElement(tag);
      one.textContent = cell;
      if (kind) one.className = kind;
      made.append(one);
    }
    table.append(made);
  };
  row(run[what].head.map(heading => [heading, ""]), "th");
  run[what].rows.forEach(cells => row(cells, "td"));
}

const all = values.parts.map((part, number) => {
  const name = "part-" + number;
  if (!part.models.length) return () => undefined;
  const state = {model: Math.max(0, part.models.findIndex(model => model.run)), by: "device", path: true};
  const chosen = () => {
    drawSwitchover(part, name, state); drawResources(part, name, state); drawMemory(part, name, state); drawLink(part, name, state);
    fillTable(part, name, state, "connections"); fillTable(part, name, state, "devices");
  };
  const select = document.getElementById(name + "-model"), by = document.getElementById(name + "-by");
  select.value = String(state.model);
  select.addEventListener("change", () => { state.model = Number(select.value); chosen(); });
  by.addEventListener("click", event => {
    if (!event.target.dataset.by) return;
    state.by = event.target.dataset.by;
    for (const button of by.children) button.setAttribute("aria-pressed", String(button.dataset.by === state.by));
    drawSwitchover(part, name, state);
  });
  document.getElementById(name + "-path").addEventListener("change", event => { state.path = event.target.checked; drawSwitchover(part, name, state); });
  const proof = document.getElementById(name + "-proof");
  // What the first sentence says is to be seen where most of the fastest model's path is of one kind.
  if (proof && part.models[0].run) proof.addEventListener("click", () => {
    state.model = 0; state.path = document.getElementById(name + "-path").checked = true; select.value = "0";
    chosen();
    const path = part.models[0].run.path, took = {};
    for (const link of path) took[link.kind] = (took[link.kind] || 0) + link.end_ms - link.begin_ms;
    const most = Object.keys(took).reduce((a, b) => took[a] >= took[b] ? a : b);
    const of = path.filter(link => link.kind === most && link.end_ms - link.begin_ms > .02 * took[most]);
    const first = of[0].begin_ms, last = of[of.length - 1].end_ms, beside = .03 * (last - first);
    Plotly.relayout(name + "-switchover", {"xaxis.range": [first - beside, last + beside]});
  });
  return () => { drawDowntime(part, name); drawKinds(part, name); chosen(); };
});
begin(() => all.forEach(one => one()));
