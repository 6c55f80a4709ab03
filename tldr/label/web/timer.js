// Time on an item: seconds at work, and gaps of more than a minute without a sign of life, which count as idle.

export const IDLE_AFTER = 60;

export class Timer {
  constructor(seconds = 0, idle = 0) {
    this.seconds = seconds;
    this.idle = idle;
    this.last = performance.now();
  }
  /** A sign of life. */
  touch() {
    const now = performance.now();
    const gap = (now - this.last) / 1000;
    this.last = now;
    if (gap > IDLE_AFTER) this.idle += gap; else this.seconds += gap;
  }
  get quietFor() { return (performance.now() - this.last) / 1000; }
}
