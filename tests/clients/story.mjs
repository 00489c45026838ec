// Runs the README's operations with one client and returns the results. A client is a function
// (name, variables) => {data, errors}, where errors are those of GraphQL.

export async function runStory(execute, { year, month }) {
  const must = async (name, variables) => {
    const { data, errors } = await execute(name, variables);
    if (errors?.length) throw new Error(`${name}: ${JSON.stringify(errors)}`);
    return data;
  };
  const results = {};
  results.created = [];
  for (const slug of ['STORY_30', 'STORY_50']) {
    const { createSegment } = await must('storyCreateMutation', { input: { slug } });
    results.created.push([createSegment.segment.slug, createSegment.errors.length]);
  }
  const added = async (input) =>
    (await must('storyUpdateMutation', { input: { userId: '1', ...input } })).updateUserSegments;
  results.added = [
    (await added({ add: ['STORY_30'] })).segmentsAdded,
    (await added({ add: ['STORY_50'], ttlSeconds: 3600 })).segmentsAdded,
  ];
  const { user } = await must('storyUserQuery', { id: '1' });
  const membership = (m) => [m.segment.slug, m.expiresAt !== null, m.cause];
  results.memberships = user.memberships.map(membership);
  const rejected = await added({ add: ['STORY_30', 'NOPE'] });
  const errorFields = (e) => [e.__typename, e.code, e.path, e.slugs];
  results.refused = [rejected.user, rejected.errors.map(errorFields)];

  results.history = [];
  let after = null;
  do {
    const { history } = await must('storyHistoryQuery', { userId: '1', first: 1, after });
    for (const { node } of history.edges) {
      results.history.push([node.operation, node.segment.slug, node.actor]);
    }
    after = history.pageInfo.hasNextPage ? history.pageInfo.endCursor : null;
  } while (after);

  const { createReport } = await must('storyReportMutation', {
    input: { userId: '1', year, month, waitSeconds: 60 },
  });
  const { report } = createReport;
  const file = await fetch(report.downloadUrl);
  const lines = (await file.text()).trim().split('\n');
  results.report = [report.status, report.rowCount, report.fileName, file.status];
  results.lines = [lines[0], ...lines.slice(1).map((line) => line.split(',').slice(0, 3).join())];

  const percent = { slug: 'STORY_ALL', rollout: { percent: 100 } };
  await must('storyCreateMutation', { input: percent });
  let segment;
  const ends = Date.now() + 60_000;
  do {
    if (Date.now() > ends) throw new Error('the rollout does not end');
    await new Promise((resume) => setTimeout(resume, 100));
    ({ segment } = await must('storyRolloutQuery', { slug: 'STORY_ALL' }));
  } while (segment.rollout.status !== 'COMPLETED');
  // The last query may have read the members before the status.
  ({ segment } = await must('storyRolloutQuery', { slug: 'STORY_ALL' }));
  results.rollout = [segment.rollout.percent, segment.memberCount];

  const { errors } = await execute('storyBadQuery', {});
  results.bad = errors.map((error) => [error.extensions.code, error.extensions.argument]);
  return results;
}
