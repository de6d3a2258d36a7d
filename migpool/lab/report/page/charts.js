// What the charts of every page have in common: values, colours, layout, the theme. A page's own script follows, and ends
// with begin().
const values = JSON.parse(document.getElementById("values").textContent);
const root = document.documentElement;
const CONFIG = {displaylogo: false, responsive: true, displayModeBar: false};
const MOVING = {...CONFIG, displayModeBar: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toImage"]};
const PAPER = 670;
let printing = false;

const css = name => getComputedStyle(root).getPropertyValue(name).trim();
const narrow = () => !printing && window.innerWidth < 640;
// The library reads a little markup in its labels: names are never markup.
const text = name => String(name).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = name => {
  const most = narrow() ? 16 : 40;
  if (narrow()) name = name.replace(/^source: /, "src ").replace(/^destination: /, "dst ");
  return text(name.length > most ? name.slice(0, most / 2 - 1) + "…" + name.slice(1 - most / 2) : name);
};
const ms = value => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)) + " ms";
const MIB = 1048576;

function layout(more) {
  const axis = {gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true};
  const made = {
    paper_bgcolor: css("--back"), plot_bgcolor: css("--back"), font: {color: css("--text"), size: 12, family: "inherit"},
    margin: {l: 8, r: 16, t: 8, b: 36}, hovermode: "closest", dragmode: "zoom",
    hoverlabel: {bgcolor: css("--panel"), bordercolor: css("--line"), font: {color: css("--text")}, align: "left"},
    legend: {orientation: "h", y: -.12, yanchor: "top", x: 0, font: {size: 11}}, ...more,
  };
  if (printing) made.width = PAPER;
  made.xaxis = {...axis, ...(more.xaxis || {})};
  made.yaxis = {...axis, ...(more.yaxis || {})};
  return made;
}

const draw = (id, traces, more, config) => Plotly.react(id, traces, layout(more), config || CONFIG);


// Draw, now and whenever the colours change. draw: draws all charts anew.
function begin(drawAll) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  const retheme = () => { theme.textContent = isDark() ? "light" : "dark"; drawAll(); };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; retheme(); });
  system.addEventListener("change", retheme);
  let before = "";
  window.addEventListener("beforeprint", () => { before = root.dataset.theme || ""; root.dataset.theme = "light"; printing = true; drawAll(); });
  window.addEventListener("afterprint", () => { printing = false; if (before) root.dataset.theme = before; else delete root.dataset.theme; drawAll(); });
  retheme();
  root.dataset.ready = "yes";
}
