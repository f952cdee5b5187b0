// The sandbox's events. After some failures the browser does not reconnect on its own, so this module does.

const PAUSE = 2000;

/**
 * Follow the sandbox's state.
 *
 * A hidden page closes its connection, because all tabs of a browser share six of them.
 *
 * @param onState called with each state, and whether earlier changes may have been missed.
 * @param onConnection called with whether the page is connected.
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
