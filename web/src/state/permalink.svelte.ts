/** Keep the settings of the page in its address, a moment behind; null leaves the address as it is. Call inside a component. */
export function permalink(settings: () => URLSearchParams | null) {
  $effect(() => {
    const query = settings()?.toString();
    if (query === undefined) return;
    const timer = setTimeout(() => history.replaceState(null, '', location.pathname + (query && `?${query}`)), 150);
    return () => clearTimeout(timer);
  });
}
