import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  base: "/explorer/",
  plugins: [react()],
  build: {
    outDir: "../src/segmentql/static/explorer",
    emptyOutDir: true,
    // Monaco is this large, and this server is near: nobody waits for it.
    chunkSizeWarningLimit: 8000,
    // The bundle carries other people's MIT code, whose notices go with it.
    license: { fileName: "licenses.md" },
  },
  // GraphiQL's worker loads its formatter lazily, which a classic worker cannot.
  worker: { format: "es" },
});
