// The client's side of docs/protocol.md, for pages: follows streams over as many connections as it takes.
//
//   import { HubClient } from "./hub_client.js";
//   new HubClient(url, ["room:lobby"], { onMessage: (message) => show(message.data) }).start();
//
// Every message is given to `onMessage` once and in order. `onGone` means: load what you show anew, then go on.

export const VERSION = 1;
const FIRST_BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 10_000;

export class HubClient {
  // positions: of an earlier life, for instance out of sessionStorage. onOther gets the application's own messages.
  constructor(url, streams, { positions = {}, onMessage, onGone, onState, onOther, WebSocket = globalThis.WebSocket } = {}) {
    Object.assign(this, { url, streams, onMessage, onGone, onState, onOther, WebSocket });
    this.positions = { ...positions };
    this.seen = new Map();
    this.failures = 0;
    this.isStopped = true;
  }

  start() {
    this.isStopped = false;
    const socket = (this.socket = new this.WebSocket(this.url));
    socket.onopen = () => this.opening().forEach((text) => socket.send(text));
    socket.onmessage = ({ data }) => {
      const { found, answer, isOurs } = this.receive(data);
      if (!isOurs) this.onOther?.(data);
      if (found) this.#tell(found);
      if (answer && socket.readyState === 1) socket.send(answer);
    };
    socket.onclose = () => this.#again();
  }

  stop() {
    this.isStopped = true;
    clearTimeout(this.timer);
    this.socket?.close();
  }

  // What to send on a new connection.
  opening() {
    return this.streams.map((stream) => this.#request("resume", stream, this.positions[stream]));
  }

  // Takes what came; gives what is new, what to answer, and whether it was the protocol's.
  receive(text) {
    const fields = parse(text);
    if (!fields) return { isOurs: false };
    const { type, stream } = fields;
    if (fields.hub !== VERSION || typeof stream !== "string") return { isOurs: true };
    if (type === "message") return { ...this.#message(stream, fields), isOurs: true };
    if (type === "gone") this.seen.delete(stream);
    if (fields.position !== undefined) this.positions[stream] = fields.position;
    return { found: { kind: type, stream }, isOurs: true };
  }

  #message(stream, { epoch, offset, position, ack, ...fields }) {
    const answer = ack ? this.#request("ack", stream, position) : undefined;
    const seen = this.seen.get(stream);
    if (seen && seen.epoch === epoch && offset <= seen.offset) return { answer };
    this.seen.set(stream, { epoch, offset });
    this.positions[stream] = position;
    const data = "base64" in fields ? bytes(fields.base64) : "text" in fields ? fields.text : fields.data;
    return { found: { kind: "message", stream, data, epoch, offset }, answer };
  }

  #tell(found) {
    if (found.kind === "message") this.onMessage?.(found);
    else if (found.kind === "gone") this.onGone?.(found);
    if (found.kind === "unavailable") {
      this.failures += 1;
      this.socket.close();
    } else {
      this.failures = 0;
    }
    this.onState?.(found.kind, found.stream);
  }

  #again() {
    if (this.isStopped) return;
    this.failures += 1;
    const most = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** Math.min(this.failures, 10));
    this.timer = setTimeout(() => this.start(), most * (0.5 + Math.random() / 2));
  }

  #request(type, stream, position) {
    return JSON.stringify({ hub: VERSION, type, stream, position });
  }
}

function parse(text) {
  if (typeof text !== "string" || !text.includes('"hub"')) return null;
  try {
    const fields = JSON.parse(text);
    return fields && typeof fields === "object" && !Array.isArray(fields) && "hub" in fields ? fields : null;
  } catch {
    return null;
  }
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
