"""All figures of docs/performance.md that concern this system alone: ``make figures``."""
