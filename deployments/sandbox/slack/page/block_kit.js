// Block Kit and mrkdwn as DOM nodes. Text only ever becomes text nodes, so nothing that is posted can inject markup.

const EMOJI = {white_check_mark: "✅", heavy_check_mark: "✔️", x: "❌", warning: "⚠️", rotating_light: "🚨", hourglass: "⌛", hourglass_flowing_sand: "⏳",
  rocket: "🚀", tada: "🎉", chart_with_upwards_trend: "📈", chart_with_downwards_trend: "📉", bar_chart: "📊", large_green_circle: "🟢", red_circle: "🔴",
  large_yellow_circle: "🟡", large_orange_circle: "🟠", white_circle: "⚪", information_source: "ℹ️", eyes: "👀", bell: "🔔", memo: "📝", link: "🔗",
  mag: "🔍", bust_in_silhouette: "👤", busts_in_silhouette: "👥", arrow_right: "➡️", arrow_left: "⬅️", rewind: "⏪", no_entry: "⛔", octagonal_sign: "🛑",
  leftwards_arrow_with_hook: "↩️", lock: "🔒", question: "❓", grey_question: "❔", exclamation: "❗", repeat: "🔁", clock3: "🕒", alarm_clock: "⏰", fire: "🔥",
  package: "📦", shield: "🛡️", "+1": "👍", "-1": "👎", thumbsup: "👍", thumbsdown: "👎", wave: "👋", robot_face: "🤖", wrench: "🔧", hammer_and_wrench: "🛠️",
  calendar: "📅", stopwatch: "⏱️", trophy: "🏆", test_tube: "🧪", microscope: "🔬", scales: "⚖️", page_facing_up: "📄", zzz: "💤", heavy_minus_sign: "➖"};
const TAGS = {"*": "strong", "_": "em", "~": "s"};

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const decoded = (text) => text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
const emojied = (text) => text.replace(/:([a-z0-9_+-]+):/g, (whole, name) => EMOJI[name] ?? whole);

export function localTime(seconds, zone, format = "{date_short_pretty} {time}") {
  const when = new Date(seconds * 1000);
  const day = (date) => new Intl.DateTimeFormat("en-CA", {timeZone: zone}).format(date);
  const say = (options) => new Intl.DateTimeFormat("en-GB", {timeZone: zone, ...options}).format(when);
  const dates = {date_num: day(when), date_slash: day(when).replaceAll("-", "/"), date: say({dateStyle: "long"}), date_long: say({dateStyle: "full"}),
    date_short: say({dateStyle: "medium"}), time: say({timeStyle: "short"}), time_secs: say({timeStyle: "medium"})};
  const near = {"-1": "yesterday", 0: "today", 1: "tomorrow"}[[-1, 0, 1].find((n) => day(new Date(Date.now() + n * 864e5)) === day(when))];
  const pick = (name) => name.endsWith("_pretty") ? near ?? dates[name.slice(0, -7)] : dates[name];
  return format.replace(/\{(\w+)\}/g, (whole, name) => pick(name) ?? whole);
}

function special(inner, world) {
  const bar = inner.indexOf("|");
  const target = decoded(bar < 0 ? inner : inner.slice(0, bar)), label = bar < 0 ? "" : decoded(inner.slice(bar + 1));
  const named = (list, id, key) => list.find((one) => one.id === id)?.[key] ?? id;
  const mention = (text) => el("span", {class: "mention"}, text);
  if (target.startsWith("@")) return mention("@" + (label || named(world.users, target.slice(1), "real_name")));
  if (target.startsWith("#")) return mention("#" + (label || named(world.channels, target.slice(1), "name")));
  if (target.startsWith("!subteam^")) return mention("@" + named(world.groups, target.slice(9), "handle"));
  if (target.startsWith("!date^")) {
    const [, seconds, format, href] = target.split("^");
    const time = el("time", {title: label}, Number.isFinite(+seconds) ? localTime(+seconds, world.me.tz, format) : label);
    return /^https?:/.test(href ?? "") ? el("a", {href, target: "_blank", rel: "noopener"}, time) : time;
  }
  if (target.startsWith("!")) return mention("@" + target.slice(1));
  if (/^(https?:|mailto:)/.test(target)) return el("a", {href: target, target: "_blank", rel: "noopener"}, emojied(label || target));
  return document.createTextNode(`<${decoded(inner)}>`);
}

function inline(text, world) {
  const out = document.createDocumentFragment();
  const rules = [
    [/`([^`\n]+)`/y, (m) => el("code", {}, decoded(m[1]))],
    [/<([^<>\n]+)>/y, (m) => special(m[1], world)],
    [/:([a-z0-9_+-]+):/y, (m) => EMOJI[m[1]] && document.createTextNode(EMOJI[m[1]])],
    [/([*_~])(?=\S)([^\n]*?\S)\1(?![\p{L}\p{N}])/uy, (m, before) => !/[\p{L}\p{N}]/u.test(before) && el(TAGS[m[1]], {}, inline(m[2], world))],
  ];
  let plain = "";
  for (let at = 0; at < text.length;) {
    let node = null, length = 1;
    for (const [rule, make] of rules) {
      rule.lastIndex = at;
      const match = rule.exec(text);
      if (match && (node = make(match, text[at - 1] ?? " "))) { length = match[0].length; break; }
    }
    if (node) { out.append(decoded(plain), node); plain = ""; } else plain += text[at];
    at += length;
  }
  out.append(decoded(plain));
  return out;
}

export function mrkdwn(text, world) {
  const out = el("div", {class: "mrkdwn"});
  text.split(/```\n?([\s\S]*?)```/).forEach((part, index) => {
    if (index % 2) return out.append(el("pre", {}, decoded(part)));
    let quote = null;
    for (const line of part.replace(/^\n|\n$/g, "").split("\n")) {
      const quoted = line.match(/^(?:&gt;|>) ?(.*)/), listed = line.match(/^\s*([•◦-]|\d+\.)\s+(.*)/);
      if (quoted) { if (!quote) out.append(quote = el("blockquote")); quote.append(el("div", {}, inline(quoted[1], world))); continue; }
      quote = null;
      if (listed) out.append(el("div", {class: "item"}, el("span", {}, listed[1]), el("div", {}, inline(listed[2], world))));
      else if (line || part.trim()) out.append(el("div", {}, line ? inline(line, world) : el("br")));
    }
  });
  return out;
}

const text = (object, world) => object.type === "mrkdwn" ? mrkdwn(object.text, world) : el("div", {class: "plain"}, emojied(object.text));

function image(block, world) {
  const file = block.slack_file && world.files.find((one) => one.id === block.slack_file.id || one.url_private === block.slack_file.url);
  return el("img", {src: block.image_url ?? file?.url_private ?? "", alt: block.alt_text});
}

// `place` says where an element stands and what a press does: {where, entered(block, element), enter(…), press(…), errors}
function element(item, block, place) {
  const names = {"data-action-id": item.action_id, "data-block-id": block.block_id, ...place.where};
  const current = place.entered(block, item);
  switch (item.type) {
    case "button":
      return el("button", {...names, type: "button", class: item.style ?? "",
        onclick: (event) => place.press(block, item, event.currentTarget)}, emojied(item.text.text));
    case "static_select": {
      const chosen = current ?? item.initial_option?.value;
      return el("select", {...names, onchange: (event) => place.enter(block, item, event.target.value)},
        el("option", {value: "", disabled: true, selected: !chosen}, item.placeholder?.text ?? "Choose an option"),
        ...item.options.map((one) => el("option", {value: one.value, selected: one.value === chosen}, emojied(one.text.text))));
    }
    case "plain_text_input": {
      const field = el(item.multiline ? "textarea" : "input", {...names, rows: item.multiline ? 3 : null, placeholder: item.placeholder?.text,
        maxlength: item.max_length, oninput: (event) => place.enter(block, item, event.target.value)});
      field.value = current ?? item.initial_value ?? "";
      return field;
    }
  }
}

const shows = {
  header: (block, place, world) => el("h3", {}, text(block.text, world)),
  divider: () => el("hr"),
  image: (block, place, world) => el("figure", {}, block.title && el("figcaption", {}, block.title.text), image(block, world)),
  context: (block, place, world) => el("div", {class: "context"}, ...block.elements.map((one) => text(one, world))),
  actions: (block, place, world) => el("div", {class: "actions"}, ...block.elements.map((one) => element(one, block, place))),
  section: (block, place, world) => el("div", {class: "section"}, el("div", {}, block.text && text(block.text, world),
    block.fields && el("div", {class: "fields"}, ...block.fields.map((one) => text(one, world))))),
  input: (block, place, world) => el("div", {class: "input"}, el("label", {}, emojied(block.label.text), block.optional && el("small", {}, " (optional)")),
    element(block.element, block, place), block.hint && el("small", {}, emojied(block.hint.text)),
    place.errors?.[block.block_id] && el("div", {class: "error", role: "alert", "data-error-for": block.block_id}, place.errors[block.block_id])),
};

export function blocks(list, place, world) {
  return el("div", {class: "blocks"}, ...list.map((block) => {
    const node = shows[block.type](block, place, world);
    node.dataset.block = block.block_id;
    return node;
  }));
}
