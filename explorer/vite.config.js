import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  base: "/explorer/",
  plugins: [react()],
  build: {
    outDir: "../src/segmentql/static/explorer",
    emptyOutDir: true,
    // Monaco exceeds the default limit. The server is local, so the size does not matter.
    chunkSizeWarningLimit: 8000,
    // The bundle contains MIT-licensed code, which requires its notices.
    license: { fileName: "licenses.md" },
  },
  // GraphiQL's worker imports its formatter dynamically, which classic workers do not support.
  worker: { format: "es" },
});
