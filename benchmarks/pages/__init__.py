"""docs/performance.md from the committed results: one file a chapter, each made from its JSON alone."""
