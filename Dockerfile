# The archive worker, the HTTP door and the command line. Build: docker build -t weixin-media-archiver .
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The image has its own node: neither the devDependency of that name nor anything else runs a script here.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY workers ./workers
RUN node_modules/.bin/tsc -p tsconfig.build.json && npm prune --omit=dev --ignore-scripts

FROM node:24-bookworm-slim
ENV NODE_ENV=production
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# The user that the image brings; it owns nothing here and writes nowhere.
USER node
EXPOSE 9464 8080
ENTRYPOINT ["node", "dist/src/operate/cli.js"]
CMD ["worker"]
