// The page: what one person sees, asked for anew several times a second, and what they press, sent as that person.
import {blocks, el, localTime, mrkdwn} from "/page/block_kit.js";

const $ = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const now = {atEnd: true, user: asked.get("user"), place: asked.get("channel"), world: null, drawn: {}, errors: {}, entered: {}, folded: new Set()};

async function act(name, body) {
  const reply = await fetch(`/ui/${name}`, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({user: now.user, ...body})});
  const outcome = await reply.json();
  const said = {operation_timeout: "⚠️ The app did not answer within three seconds.", dispatch_failed: "⚠️ The app could not be reached.", incomplete: ""};
  if (!reply.ok) toast(`⚠️ ${outcome.error}`);
  else if (outcome.error) toast(said[outcome.error] ?? `⚠️ The app's answer was refused: ${outcome.error}`);
  else if (outcome.acked) toast(`Acknowledged in ${Math.round(outcome.ack_ms)} ms`, true);
  await refresh();
  return outcome;
}

function toast(text, quiet = false) {
  $("toast").textContent = text;
  $("toast").className = text ? (quiet ? "quiet shown" : "shown") : "";
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("toast").className = ""; }, quiet ? 1500 : 5000);
}

// Where the elements of one message or view stand, and what is entered in them
function place(key, where, target, errors) {
  const entered = now.entered[key] ??= {};
  return {
    where, errors,
    entered: (block, item) => entered[block.block_id]?.[item.action_id],
    enter: (block, item, value) => { (entered[block.block_id] ??= {})[item.action_id] = value; },
    press: async (block, item, button) => {
      button.setAttribute("aria-busy", "true");
      button.disabled = true;
      await act("press", {...target, action_id: item.action_id, block_id: block.block_id});
      button.disabled = false;
      button.removeAttribute("aria-busy");
    },
  };
}

function message(one, replies, inThread = false) {
  const image = (file) => file.mimetype.startsWith("image/") ? el("img", {src: file.url_private, alt: file.alt_txt || file.title}) : "📄 " + file.title;
  const folded = now.folded.has(one.ts), count = `${replies.length} ${replies.length === 1 ? "reply" : "replies"}`;
  const fold = () => { folded ? now.folded.delete(one.ts) : now.folded.add(one.ts); draw(true); };
  return el("article", {"data-message-ts": one.ts, "data-ephemeral": one.is_ephemeral, "data-thread-ts": one.thread_ts},
    el("span", {class: "avatar", "aria-hidden": "true"}, "FA"),
    el("div", {class: "body"},
      one.is_ephemeral ? el("small", {class: "only-you"}, "Only visible to you") : null,
      el("div", {class: "by"}, el("strong", {}, "Fraud A/B"), el("span", {class: "app"}, "APP"),
        el("time", {}, localTime(+one.ts, now.world.me.tz)), one.subtype === "thread_broadcast" ? el("small", {}, inThread ? "also sent to the channel" : "replied to a thread") : null),
      one.blocks ? blocks(one.blocks, place(one.ts, {"data-message-ts": one.ts}, {message_ts: one.ts}), now.world) : mrkdwn(one.text, now.world),
      ...(one.files ?? []).map((file) => el("figure", {}, el("figcaption", {}, file.title), el("a", {href: file.permalink, target: "_blank"}, image(file)))),
      one.edited ? el("small", {class: "edited"}, "(edited)") : null,
      replies.length ? el("button", {class: "fold", "data-thread-toggle": one.ts, "aria-expanded": String(!folded), onclick: fold}, `${folded ? "▸" : "▾"} ${count}`) : null,
      replies.length && !folded ? el("div", {class: "thread", "data-thread": one.ts}, ...replies.map((reply) => message(reply, [], true))) : null));
}

function drawList() {
  const home = now.place === "home", direct = now.place.startsWith("D"), here = now.world.messages.filter((one) => one.channel === now.place);
  const channel = now.world.channels.find((one) => one.id === now.place);
  $("title").textContent = home ? "Fraud A/B · Home" : direct ? "Fraud A/B" : "# " + (channel?.name ?? now.place);
  $("composer").hidden = home;
  const known = new Set(here.map((one) => one.ts));
  const tops = here.filter((one) => !one.thread_ts || one.thread_ts === one.ts || one.subtype === "thread_broadcast" || !known.has(one.thread_ts));
  const shown = home ? [now.world.home ? blocks(now.world.home.blocks, place("home", {"data-view-id": now.world.home.id}, {view_id: now.world.home.id}), now.world)
    : el("p", {class: "empty"}, "The app has published nothing here yet.")]
    : tops.map((one) => message(one, here.filter((reply) => reply.thread_ts === one.ts && reply.ts !== one.ts)));
  const list = $("list"), before = list.scrollTop;
  list.replaceChildren(...(shown.length ? shown : [el("p", {class: "empty"}, "Nothing has been said here yet.")]));
  list.querySelectorAll("img").forEach((image) => { image.onload = settle; });
  list.scrollTop = home ? 0 : before;
  settle();
}

// Whoever reads the end keeps seeing the end, also when an image arrives late
const settle = () => { if (now.atEnd && now.place !== "home") $("list").scrollTop = $("list").scrollHeight; };

function drawNavigation() {
  const {me, users, channels} = now.world;
  $("user").replaceChildren(...users.map((user) => el("option", {value: user.id, selected: user.id === me.id}, user.real_name)));
  const go = (id, name, names) => el("button", {...names, "aria-current": id === now.place ? "page" : null, onclick: () => enter(id)}, name);
  $("places").replaceChildren(...channels.map((one) => one.id.startsWith("D") ? go(one.id, "✉ Fraud A/B", {"data-channel": one.id}) : go(one.id, "# " + one.name, {"data-channel": one.id})),
    go("home", "⌂ App Home", {"data-open-home": true}));
  $("reach").textContent = now.world.app_reachable ? "" : "⚠️ The app is not connected";
}

function drawModal() {
  const view = now.world.view, modal = $("modal");
  if (!view) return modal.close();
  const fail = now.errors[view.id] ?? {};
  const submit = async (event) => {
    event.preventDefault();
    modal.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    const outcome = await act("submit", {entered: now.entered[view.id]});
    now.errors[view.id] = outcome.field_errors ?? {};
    if (outcome.error && outcome.error !== "incomplete") now.errors[view.id] = {"": "We had some trouble connecting. Try again?"};
    draw(true);
    modal.querySelector(".error")?.scrollIntoView({block: "nearest"});
  };
  const close = () => act("close_modal", {});
  modal.oncancel = (event) => { event.preventDefault(); close(); };
  modal.dataset.viewId = view.id;
  modal.dataset.callbackId = view.callback_id;
  modal.replaceChildren(el("form", {onsubmit: submit, novalidate: true, autocomplete: "off"},
    el("header", {}, el("h2", {}, view.title.text), el("button", {type: "button", "aria-label": "Close", onclick: close}, "✕")),
    blocks(view.blocks, place(view.id, {"data-view-id": view.id}, {view_id: view.id}, fail), now.world),
    fail[""] ? el("div", {class: "error", role: "alert"}, fail[""]) : null,
    el("footer", {}, el("button", {type: "button", "data-modal-close": true, onclick: close}, view.close?.text ?? "Cancel"),
      view.submit ? el("button", {class: "primary", "data-modal-submit": true}, view.submit.text) : null)));
  if (!modal.open) modal.showModal();
}

// Draw only what changed, so that a half-filled modal or an open select is left alone
function draw(all = false) {
  const parts = {navigation: [drawNavigation, [now.world.users, now.world.channels, now.world.app_reachable, now.place, now.user]],
    list: [drawList, [now.place === "home" ? now.world.home : now.world.messages, now.world.files, now.place, now.user]],
    modal: [drawModal, [now.world.view, now.errors]]};
  for (const [name, [make, shown]] of Object.entries(parts)) {
    const mark = JSON.stringify(shown);
    if (all || now.drawn[name] !== mark) make();
    now.drawn[name] = mark;
  }
}

async function refresh() {
  const reply = await fetch("/ui/state" + (now.user ? `?user=${encodeURIComponent(now.user)}` : ""));
  if (!reply.ok) return toast("⚠️ Nobody of that name is here.");
  const world = await reply.json();
  if (now.user && world.me.id !== now.user) return;
  if (now.world?.me.id === world.me.id && world.revision < now.world.revision) return;
  now.world = world;
  now.user = world.me.id;
  now.place ??= world.channels[0].id;
  draw();
}

async function enter(id) {
  Object.assign(now, {place: id, atEnd: true});
  draw();
  if (id === "home") await act("open_home", {});
}

$("user").onchange = async (event) => { now.user = event.target.value; now.errors = {}; if (now.place.startsWith("D")) now.place = null; await refresh(); if (now.place === "home") await enter("home"); };
$("composer").onsubmit = async (event) => {
  event.preventDefault();
  const line = $("line").value.trim();
  $("line").value = "";
  now.atEnd = true;
  if (line.startsWith("/")) await act("slash", {line, channel: now.place});
  else if (line) toast("Only commands are understood here: they begin with /");
};
$("line").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); $("composer").requestSubmit(); } };
$("list").onscroll = ({target}) => { now.atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 80; };
await refresh();
for (;;) {
  await new Promise((wake) => setTimeout(wake, 400));
  await refresh().catch(() => {});  // the server may be away for a moment
}
