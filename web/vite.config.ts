import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  // Files load each other by relative addresses. The server completes those in the pages.
  base: "./",
  plugins: [react()],
  build: {
    outDir: "../src/segmentql/static",
    emptyOutDir: true,
    rolldownOptions: { input: ["index.html", "graphiql.html"] },
    // Monaco, the editor of GraphiQL, exceeds the default limit.
    chunkSizeWarningLimit: 8000,
    // The bundle contains MIT-licensed code, which requires its notices.
    license: { fileName: "licenses.md" },
  },
  // GraphiQL's worker imports its formatter dynamically, which classic workers do not support.
  worker: { format: "es" },
});
