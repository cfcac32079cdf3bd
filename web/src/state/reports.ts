/** Hear what the server reports of a job until `heard` says that it was the last. What comes back stops it before. */
export function reports<T>(path: string, heard: (report: T) => boolean | void, lost = () => {}): () => void {
  const events = new EventSource(path);
  events.onmessage = (message) => {
    if (heard(JSON.parse(message.data) as T)) events.close();
  };
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) lost();
  };
  return () => events.close();
}
