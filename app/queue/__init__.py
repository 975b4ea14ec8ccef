"""The queue: what is done later, in the scope of the tenant that asked for it, or for the platform."""

from app.queue.asking import Queue, enqueue, enqueue_platform, queue, remove_jobs, resume_parked
from app.queue.tasks import Job, PlatformTask, Retry, Task, platform_task, task

__all__ = [
    "Job",
    "PlatformTask",
    "Queue",
    "Retry",
    "Task",
    "enqueue",
    "enqueue_platform",
    "platform_task",
    "queue",
    "remove_jobs",
    "resume_parked",
    "task",
]
