// The sandbox's events. The browser reconnects by itself, but for some failures; those are tried again here.

const PAUSE = 2000;

/**
 * Follow the sandbox's state.
 *
 * A page that nobody looks at gives its connection back: a browser has six of them for all its tabs.
 *
 * @param onState gets each state, and whether changes may have been missed without a trace before it.
 * @param onConnection gets whether there is a connection.
 */
export function follow(onState, onConnection) {
  let source = null;
  let interrupted = false;
  let pause = 0;

  function connect() {
    source = new EventSource("/sandbox/events");
    source.onopen = () => onConnection(true);
    source.onmessage = (event) => {
      onState(JSON.parse(event.data), interrupted);
      interrupted = false;
    };
    source.onerror = () => {
      interrupted = true;
      onConnection(false);
      if (source.readyState === EventSource.CLOSED) {
        pause = setTimeout(connect, PAUSE);
      }
    };
  }

  function disconnect() {
    clearTimeout(pause);
    source.close();
  }

  connect();
  document.addEventListener("visibilitychange", () => {
    disconnect();
    if (!document.hidden) {
      connect();
    }
  });
  window.addEventListener("pagehide", disconnect);
  window.addEventListener("pageshow", (event) => event.persisted && connect());
}
