// The README's story by one client: prints what it saw as JSON. A client is a function
// (name, variables) => {data, errors}, where errors are those of GraphQL.

export async function tell(ask, { year, month }) {
  const must = async (name, variables) => {
    const { data, errors } = await ask(name, variables);
    if (errors?.length) throw new Error(`${name}: ${JSON.stringify(errors)}`);
    return data;
  };
  const seen = {};
  seen.created = [];
  for (const slug of ['STORY_30', 'STORY_50']) {
    const { createSegment } = await must('storyCreateMutation', { input: { slug } });
    seen.created.push([createSegment.segment.slug, createSegment.errors.length]);
  }
  const added = async (input) =>
    (await must('storyUpdateMutation', { input: { userId: '1', ...input } })).updateUserSegments;
  seen.added = [
    (await added({ add: ['STORY_30'] })).segmentsAdded,
    (await added({ add: ['STORY_50'], ttlSeconds: 3600 })).segmentsAdded,
  ];
  const { user } = await must('storyUserQuery', { id: '1' });
  seen.memberships = user.memberships.map((m) => [m.segment.slug, m.expiresAt !== null, m.cause]);
  const refused = await added({ add: ['STORY_30', 'NOPE'] });
  seen.refused = [refused.user, refused.errors.map((e) => [e.__typename, e.code, e.path, e.slugs])];

  seen.history = [];
  let after = null;
  do {
    const { history } = await must('storyHistoryQuery', { userId: '1', first: 1, after });
    for (const { node } of history.edges) {
      seen.history.push([node.operation, node.segment.slug, node.actor]);
    }
    after = history.pageInfo.hasNextPage ? history.pageInfo.endCursor : null;
  } while (after);

  const { createReport } = await must('storyReportMutation', {
    input: { userId: '1', year, month, waitSeconds: 60 },
  });
  const { report } = createReport;
  const file = await fetch(report.downloadUrl);
  const lines = (await file.text()).trim().split('\n');
  seen.report = [report.status, report.rowCount, report.fileName, file.status];
  seen.lines = [lines[0], ...lines.slice(1).map((line) => line.split(',').slice(0, 3).join())];

  const percent = { slug: 'STORY_ALL', rollout: { percent: 100 } };
  await must('storyCreateMutation', { input: percent });
  let segment;
  const ends = Date.now() + 60_000;
  do {
    if (Date.now() > ends) throw new Error('the rollout does not end');
    await new Promise((resume) => setTimeout(resume, 100));
    ({ segment } = await must('storyRolloutQuery', { slug: 'STORY_ALL' }));
  } while (segment.rollout.status !== 'COMPLETED');
  seen.rollout = [segment.rollout.percent, segment.memberCount];

  const { errors } = await ask('storyBadQuery', {});
  seen.bad = errors.map((error) => [error.extensions.code, error.extensions.argument]);
  return seen;
}
