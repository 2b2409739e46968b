// Pages opened from a folder may start no worker, so that the search runs in a hidden frame instead.
// The script of the search looks for `IFrameWorker` to learn where it runs.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.document.open();
      inside.document.write("<!doctype html><meta charset=utf-8>");
      inside.document.close();
      const tell = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.postMessage = (data) => setTimeout(() => tell(data));
      inside.importScripts = (...names) =>
        names.reduce((before, name) => before.then(() => this.load(inside, name)), Promise.resolve());
      this.inside = inside;
      this.ready = this.load(inside, new URL(url, location.href).href);
    }
    load(inside, name) {
      return new Promise((done, failed) => {
        const script = inside.document.createElement("script");
        Object.assign(script, { src: name, onload: done, onerror: failed });
        inside.document.head.append(script);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
